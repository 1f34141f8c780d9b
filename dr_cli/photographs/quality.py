"""Whether a picture is a photograph that can be graded: the rule, and its version."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dr_cli.photographs.field import Field
from dr_cli.photographs.measures import measure

VERSION = 3
"""Of the rule; part of the crops' key, because qualities are kept beside them. Whoever changes
what `judge` gives, or the weights, raises it."""

WEIGHTS = Path(__file__).with_name("quality.npz")
"""Of the network that weighs the measures; made by examples/benchmarks/fit_quality.py."""

REASONS = (
    "", "too dark", "too bright", "blurred", "too little contrast", "noisy or compressed",
    "too little of the field", "not a fundus photograph",
)  # fmt: skip
"""What the network tells apart; the first is a good photograph."""

QUALITIES = (0.0, 0.3, 0.6, 0.8, 1.0)
"""What the `levels` in the weights, logits of being good, stand for: the middle of what was
degraded until its grade was lost; twice as likely good as not; the worst tenth, the middle and the
best of untouched photographs."""
GRADABLE_FROM, GOOD_FROM = QUALITIES[1:3]

SMALLEST = 24  # pixels of a field's longer side: in fewer not even a fundus is told from a ball
SMALL = 96  # below, a microaneurysm is a tenth of a pixel and a bleeding one: never "good"

Verdict = Literal["good", "usable", "reject"]


@dataclass(frozen=True)
class Judgement:
    """What is thought of a photograph."""

    quality: float
    """In [0, 1]."""
    reason: str
    """What speaks most against it, in plain words, such as "too dark"; "" where it is good."""

    @property
    def gradable(self) -> bool:
        """Whether a grade of it means much."""
        return self.quality >= GRADABLE_FROM

    @property
    def verdict(self) -> Verdict:
        """In a word: "reject" is not gradable."""
        if not self.gradable:
            return "reject"
        return "good" if self.quality >= GOOD_FROM else "usable"


def judge(picture: Image.Image, found: Field) -> Judgement:
    """Whether an RGB picture, in which this field was found, is a photograph that can be graded.

    A small network weighs what `measure` finds. It has learned from photographs degraded by
    procedure and from pictures of other things, so it tells what a person sees at a glance; it is
    no clinical measure of quality.
    """
    if found.filled == 0:
        return Judgement(0.0, "no field")
    if found.box.side < SMALLEST:
        return Judgement(0.0, "too small")
    shares = weigh(measure(picture, found))
    good = float(np.log(shares[0] + 1e-9) - np.log(1 - shares[0] + 1e-9))
    quality = float(np.interp(good, _weights()["levels"], QUALITIES))
    reason = REASONS[1 + int(shares[1:].argmax())]
    if quality >= GRADABLE_FROM and reason == REASONS[-1]:
        reason = "unlike most fundus photographs"  # such as a pale fundus
    if quality >= GOOD_FROM and found.box.side < SMALL:
        quality, reason = GOOD_FROM - 0.01, "too small"
    return Judgement(round(quality, 4), reason if quality < GOOD_FROM else "")


def weigh(measures: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of each of `REASONS`, of measures [..., M]: [..., 8], their sum 1."""
    w = _weights()
    inputs = np.clip((measures - w["mean"]) / w["deviation"], -5, 5)
    logits = np.tanh(inputs @ w["hidden"] + w["hidden_bias"]) @ w["out"] + w["out_bias"]
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


@cache
def _weights() -> dict[str, NDArray[np.float32]]:
    with np.load(WEIGHTS) as stored:
        return dict(stored)
