"""Which epoch to keep: the best on validation, or a later one that chance does not tell from it.

    python examples/benchmarks/epochs.py ../shared/data/aptos --photographs 300 --seeds 0 1 2
    python examples/benchmarks/epochs.py ../shared/data/aptos --photographs 300 --start drawn

Each seed trains on so many photographs, some of which are its validation. Every epoch is judged on
600 others, which choose nothing, by cuts chosen on validation: their QWK by the epoch that is kept
where a later one may be worse by so many standard errors (0 keeps the best, inf the last). The
fifth of APTOS that `drawn.py` holds out is not touched.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from drawn import FIFTH, read, take, write

from dr_cli.scoring import metrics
from dr_cli.scoring.calibration import calibrate
from dr_cli.training import learner, session, trainer
from dr_cli.training.config import TrainConfig

SLACKS = (0.0, 1.0, 2.0, math.inf)
OTHERS, APART = 600, 77  # photographs that judge, and the seed that draws them


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--start", default="scratch")
    parser.add_argument("--schedule", default="cosine")
    options = parser.parse_args()
    table, found = read(options.data), []
    print("| seed | standard error | " + " | ".join(f"{slack:g}" for slack in SLACKS) + " |")
    print("| --- " * (2 + len(SLACKS)) + "|")
    for seed in options.seeds:
        epochs = train(draw(table, options.photographs, seed), seed, options)
        found.append([judge(epochs, slack) for slack in SLACKS])
        cells = [f"{qwk:.3f} ({number})" for number, qwk in found[-1]]
        error = max(epochs, key=lambda one: one["qwk"])["error"]
        print(f"| {seed} | {error:.3f} | " + " | ".join(cells) + " |", flush=True)
    means = [statistics.mean(qwk for _, qwk in each) for each in zip(*found, strict=True)]
    print("| mean | | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")


def draw(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many photographs as train, `OTHERS` without a duplicate among them as test."""
    free = np.flatnonzero(~take(table, 0.2, FIFTH))
    others = np.random.default_rng(APART).permutation(free)[:OTHERS]
    apart = ~table["group"].isin(table["group"].iloc[others]).to_numpy()
    rows = np.random.default_rng(1000 + seed).permutation(free)
    rows = rows[apart[rows]][:count]
    test, train = table.assign(split="test").iloc[others], table.assign(split="train").iloc[rows]
    return pd.concat([test, train])


def train(data: pd.DataFrame, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each epoch: QWK and its standard error on validation, logits and grades of both splits."""
    kept: list[dict[str, Any]] = []

    class Watched(learner.Learner):
        def weigh(self, merit: float | None, logits: Any) -> bool:
            kept[-1] |= {"qwk": merit, "error": self._error(logits)}
            return super().weigh(merit, logits)

    real = learner.predict_splits

    def predict(network: Any, plan: Any, *rest: Any) -> dict[str, Any]:
        found = real(network, plan, *rest)
        kept.append({split: (values, plan.grades(split)) for split, values in found.items()})
        return found

    config = TrainConfig(
        size=options.size, epochs=options.epochs, seed=seed, start=options.start,
        schedule=options.schedule,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(trainer, "Learner", Watched),
        mock.patch.object(learner, "predict_splits", predict),
    ):
        session.train(write(data, Path(folder, "data")), config, runs=Path(folder, "runs"))
    return kept


def judge(epochs: list[dict[str, Any]], slack: float) -> tuple[int, float]:
    """The epoch that is kept with so much slack, from 1, and its QWK on the others."""
    peak, floor, kept = -math.inf, -math.inf, 0
    for number, one in enumerate(epochs):
        if one["qwk"] > peak:
            peak, floor = one["qwk"], one["qwk"] - slack * (one["error"] or 1e-9)
        kept = number if one["qwk"] >= floor else kept
    (logits, grade), (others, true) = epochs[kept]["val"], epochs[kept]["test"]
    chosen = calibrate(grade, logits, "qwk")
    predicted = chosen.decide(chosen.probabilities(others))
    return kept + 1, metrics.quadratic_weighted_kappa(true, predicted)


if __name__ == "__main__":
    main()
