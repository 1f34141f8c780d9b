"""How far a photograph is from those that a network learned from: another camera, another eye.

A Gaussian of the pooled features of training photographs: its widest directions one by one, all
others as one. A ResNet18 taught on APTOS (128 px, 20 epochs, light evened out) tells 258 pictures
of IDRiD from 298 that it was chosen on by AUC 0.858; with 8, 16, 64, 128 directions 0.798, 0.843,
0.874, 0.849 (examples/benchmarks/novelty.py). One that keeps the light (96 px, 6 epochs) does by
0.999: it sees the camera.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.runs import ModelRecord

DIRECTIONS = 32  # 34 kB of a ResNet18, 135 kB of a ResNet50
ENOUGH = 20  # photographs of each that are needed
HELD = 95  # per cent of the run's own held-out photographs whose novelty is at most 1
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Familiar:
    """The photographs that a network learned from, as its pooled features see them."""

    mean: Floats
    """[C]"""
    axes: Floats
    """[k, C]: the widest directions, each of length 1."""
    spread: Floats
    """[k] standard deviation along each."""
    rest: float
    """Of all other directions together."""
    far: float
    """The distance that HELD per cent of the held-out photographs keep within."""

    @classmethod
    def fit(cls, learned: Floats, held: Floats) -> "Familiar | None":
        """learned: [N, C] of training photographs; held: [M, C] of others of the same set, of
        which the distances of new photographs are like (those of the former are shorter).
        None where either is too few, or the features are all alike, or no numbers."""
        features = np.asarray(learned, np.float64)
        if min(len(features), len(held)) < ENOUGH or not np.isfinite(features).all():
            return None
        mean = features.mean(axis=0)
        _, values, axes = np.linalg.svd(features - mean, full_matrices=False)
        variance = values**2 / (len(features) - 1)
        count = min(DIRECTIONS, len(features) // 4, len(mean) - 1)
        rest = float(np.sqrt(variance[count:].sum() / (len(mean) - count)))
        if not rest > 0:
            return None
        kept = axes[:count].astype(np.float16).astype(np.float64)  # as they will be read
        found = cls(mean, kept, np.sqrt(variance[:count]), rest, 1.0)
        far = float(np.percentile(found.distance(held), HELD))
        return cls(mean, kept, found.spread, rest, far) if np.isfinite(far) and far > 0 else None

    def distance(self, pooled: Floats) -> Floats:
        """[N, C] -> [N], in standard deviations."""
        off = np.asarray(pooled, np.float64) - self.mean
        along = off @ self.axes.T
        beside = np.maximum((off**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt(((along / self.spread) ** 2).sum(axis=1) + beside / self.rest**2)

    def novelty(self, pooled: Floats) -> Floats:
        """[N, C] -> [N]: 0 is the middle of the photographs that were learned from, above 1 is
        further than HELD per cent of the run's own held-out ones."""
        return self.distance(pooled) / self.far

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON; the directions in 16 bits."""
        kinds = {"mean": "<f4", "axes": "<f2", "spread": "<f4"}
        arrays = {
            name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
            for name, kind in kinds.items()
        }
        return arrays | {"rest": self.rest, "far": self.far}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Familiar":
        """The inverse of `to_record`. ValueError or KeyError for what is none."""
        mean, spread = (
            np.frombuffer(base64.b64decode(record[name]), "<f4").astype(np.float64)
            for name in ("mean", "spread")
        )
        axes = np.frombuffer(base64.b64decode(record["axes"]), "<f2").astype(np.float64)
        shape = len(spread), len(mean)
        return cls(mean, axes.reshape(shape), spread, record["rest"], record["far"])


def read_familiar(source: Path, record: ModelRecord) -> Familiar | None:
    """What the weights of `source` say of what they learned from; None where they say nothing.
    UsageError where that is damaged."""
    if not record.familiar:
        return None
    try:
        return Familiar.from_record(record.familiar)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source}: what it learned from is damaged in it: {error}") from error


def mean_novelty(
    familiars: Sequence[Familiar | None], pooled: Sequence[Floats]
) -> list[float | None]:
    """Of each photograph, the mean over networks whose pooled features are [N, C] each; None where
    one of them does not know what it learned from."""
    known = [one for one in familiars if one]
    if len(known) < len(familiars):
        return [None] * len(pooled[0])
    each = [one.novelty(features) for one, features in zip(known, pooled, strict=True)]
    return [round(float(value), 3) for value in np.mean(each, axis=0)]
