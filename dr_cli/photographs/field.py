"""Where a photograph shows the retina: the field, a bright disc on black."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops


class Box(NamedTuple):
    """A rectangle of pixels: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


class Field(NamedTuple):
    """What `find_field` found in a picture."""

    box: Box
    level: float
    """Of the brightest channel: what is brighter is field, what is darker border."""
    filled: float
    """Part of the box that is brighter than the border; 0 where no field was found."""


# The border is near-black: over IDRiD and APTOS its corners are at most 8 and 19 of 255, and the
# darkest rim of a field is 20 to 30. A corner brighter than this is not a border but the field.
_DARKEST_FIELD = 24
_ABOVE_BORDER = 8
_PART_OF_FIELD = 0.1  # of the field's brightness: above the glow that a bright field casts round it
# Rows (columns) whose longest run of bright pixels is shorter than this part of the longest of all
# are not the field's: so text and its letters fall away, and 0.4% of a circle's height at each end.
_SHORTEST_RUN = 0.12


def find_field(picture: Image.Image) -> Field:
    """The field of an RGB picture.

    The disc may be cut at any side, have a notch, or fill the whole picture; text in the border
    is passed over. The whole picture where nothing stands out from black. Exact to one part in
    256 of the picture's longer side.
    """
    step = max(1, max(picture.size) // 256)
    small = picture.reduce(step)
    bright = ImageChops.lighter(ImageChops.lighter(*small.split()[:2]), small.getchannel("B"))
    level = _border_level(bright)
    mask = np.asarray(bright) > level
    if not mask.any():
        return Field(Box(0, 0, *picture.size), level, 0.0)
    top, bottom = _band(_longest_runs(mask))
    left, right = _band(_longest_runs(mask.T))
    ends = min(right * step, picture.width), min(bottom * step, picture.height)
    inside = mask[top:bottom, left:right]
    return Field(Box(left * step, top * step, *ends), level, float(inside.mean()))


def _border_level(bright: Image.Image) -> float:
    """The level of a picture in grey above which a pixel belongs to the field."""
    level = np.asarray(bright)
    a = max(1, min(level.shape) // 24)
    corners = (level[:a, :a], level[:a, -a:], level[-a:, :a], level[-a:, -a:])
    border = min(_DARKEST_FIELD, *(float(corner.mean()) for corner in corners))
    counts = np.cumsum(bright.histogram())
    typical = int(np.searchsorted(counts, 0.8 * counts[-1]))  # of the field: over a fifth of all
    return border + max(_ABOVE_BORDER, _PART_OF_FIELD * (typical - border))


def _longest_runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The length of the longest run of True in each row: [H, W] -> [H]."""
    count = np.cumsum(mask, axis=1)
    before = np.maximum.accumulate(np.where(mask, 0, count), axis=1)
    return (count - before).max(axis=1)


def _band(runs: NDArray[np.int64]) -> tuple[int, int]:
    """First and past-last of the unbroken rows round the longest run that are long enough."""
    peak = int(runs.argmax())
    short = np.flatnonzero(runs < max(1.0, _SHORTEST_RUN * float(runs[peak])))
    above, below = short[short < peak], short[short > peak]
    return int(above.max(initial=-1)) + 1, int(below.min(initial=len(runs)))
