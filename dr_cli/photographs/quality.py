"""Whether a picture is a photograph that can be graded: the rule, and its version."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ImageFilter
from PIL.Image import Resampling

from dr_cli.photographs.field import Field

VERSION = 1
"""Of the rule; part of the crops' key, because qualities are kept beside them. Whoever changes
what `judge` gives raises it."""

# Over all photographs of IDRiD (516) and APTOS (2,484) the least is 0.41, 0.3% lie below 0.83 and
# 0.63, and so all are gradable. Black, white, flat colour, noise (uniform, Gaussian, dark), linear
# and radial gradients, a checkerboard and a page of text score 0, white on black 0.14.
GRADABLE_FROM = 0.2
GOOD_FROM = 0.6

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


def judge(found: Field) -> Judgement:
    """Whether a picture's field is a photograph that can be graded.

    The worst of these, each 0 to 1: filled (a disc fills 0.79 of its box); bright enough; not
    washed out; structure of a vessel's size, neither too faint nor stronger than a fundus has;
    the finest detail against that structure, neither a smooth drawing's nor a page's or noise's.
    It tells photographs of a fundus from black, white, flat, noise, gradients and pages of text;
    it is no clinical measure of quality.
    """
    if found.filled == 0:
        return Judgement(0.0, "no field")
    rgb = found.thumbnail.resize((128, 128), Resampling.BILINEAR)
    pixels = np.asarray(rgb)[_MIDDLE].astype(np.float32)
    green = rgb.getchannel("G")  # where vessels and lesions stand out most
    blurs = green, green.filter(ImageFilter.BoxBlur(1)), green.filter(ImageFilter.BoxBlur(6))
    sharp, smooth, surround = (np.asarray(blur)[_MIDDLE].astype(np.float32) for blur in blurs)
    fine = float(np.abs(sharp - smooth).mean())
    coarse = float(np.abs(smooth - surround).mean())
    washed_out = float((pixels.min(axis=2) >= 250).mean())
    contrast = coarse / (float(surround.mean()) + 4)
    texture = fine / (coarse + 0.3)  # 0.3: rounding to 8 bits alone
    parts = (
        (_ramp(found.filled, 0.4, 0.7), "no field"),
        (_ramp(float(pixels.max(axis=2).mean()), 20, 60), "too dark"),
        (_ramp(washed_out, 0.5, 0.1), "too bright"),
        (_ramp(contrast, 0.004, 0.015), "too little contrast"),
        (_ramp(contrast, 0.4, 0.2), "not a fundus photograph"),
        (_ramp(texture, 0.05, 0.15), "blurred"),
        (_ramp(texture, 1.0, 0.7), "not a fundus photograph"),
    )
    worst, reason = min(parts)
    return Judgement(round(worst, 4), reason if worst < GOOD_FROM else "")


_MIDDLE = (slice(24, 104), slice(24, 104))  # away from the rim, whose edge would pass for detail


def _ramp(value: float, nothing: float, full: float) -> float:
    """0 at `nothing`, 1 at `full` and beyond, a straight line between."""
    return min(1.0, max(0.0, (value - nothing) / (full - nothing)))
