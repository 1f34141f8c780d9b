"""A map over a photograph's crop: its colours, and where its cells lie. Free of torch."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

# Every seventeenth entry of viridis (Smith, van der Walt; CC0), which rises evenly in lightness
# and reads the same to the colour-blind. Its blues and greens stand out from a fundus's oranges.
VIRIDIS = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
    "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)
STRONGEST = 0.6  # opacity where the map is 1


def upsample(
    cells: NDArray[np.floating], height: int, width: int, pitch: float
) -> NDArray[np.float32]:
    """A map [h, w] over the pixels it was made from, bilinear: [height, width] float32.

    pitch: pixels shown from cell to cell. Each of a ResNet's halvings keeps pixels 0, 2, 4, …, so
    that cell i of a map at 1/16 looks at pixel 16·i of the input and around it. An ordinary resize
    would place it at 16·i + 7.5, half a cell too far.
    """
    return np.asarray(_enlarge(cells, height, width, pitch))


def _enlarge(cells: NDArray[np.floating], height: int, width: int, pitch: float) -> Image.Image:
    # By Pillow, as exact as weights in matrices (2e-7), and on one thread: those of numpy's
    # products wait for each other, which took 4 to 10 ms a picture where others work beside.
    padded = np.pad(
        cells.astype(np.float32), (0, 1), mode="edge"
    )  # beyond the last cell, that cell
    start = 0.5 - 0.5 / pitch  # a pixel's and a cell's middle are at their halves
    box = (start, start, start + width / pitch, start + height / pitch)
    return Image.fromarray(padded).resize((width, height), _BILINEAR, box)


def field_of(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a crop shows the retina, not the black round it: uint8 [3, H, W] -> [H, W].

    What stands between lit pixels in its row and in its column is in it, however dark.
    """
    bright = pixels.max(axis=0)
    typical = float(np.percentile(bright[::4, ::4], 90))
    lit = bright > max(_DARK, _PART_OF_FIELD * typical)
    return _between(lit) & _between(lit.T).T


_DARK, _PART_OF_FIELD = 8, 0.1  # as `photographs.field` tells a field from what is round it


def _between(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From the first True of each row to its last."""
    place, width = np.arange(lit.shape[1]), lit.shape[1]
    first = np.where(lit.any(axis=1), lit.argmax(axis=1), width)
    last = width - 1 - lit[:, ::-1].argmax(axis=1)
    return (place >= first[:, None]) & (place <= last[:, None])


@cache
def colours() -> NDArray[np.uint8]:
    """The colour of each strength: [256, 3] RGB."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS.split()], float)
    place = np.linspace(0, len(anchors) - 1, 256)
    table = [np.interp(place, range(len(anchors)), channel) for channel in anchors.T]
    return np.rint(np.stack(table, axis=1)).astype(np.uint8)


def overlay(pixels: NDArray[np.uint8], cells: NDArray[np.floating], pitch: float) -> Image.Image:
    """The crop with the map over it, as opaque as the evidence is strong; none beyond the field.

    pixels: uint8 RGB, [3, H, W]; cells: [h, w], >= 0, of which the strongest within the field is
    shown full. pitch: pixels from cell to cell.
    """
    _, height, width = pixels.shape
    field = field_of(pixels[:, ::_COARSE, ::_COARSE])
    rows, columns = field.shape
    within = upsample(cells, rows, columns, pitch / _COARSE) * field
    level = _enlarge(cells * (255 / max(float(within.max()), 1e-30)), height, width, pitch)
    # Mixed by Pillow, three times as fast as by numpy.
    inside = Image.fromarray(field.astype(np.uint8) * 255).resize(level.size, _BILINEAR)
    level = ImageChops.multiply(level.convert("L"), inside)
    opacity = level.point([round(STRONGEST * k) for k in range(256)])
    level.putpalette(colours().tobytes())
    picture = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels])
    picture.paste(level.convert("RGB"), mask=opacity)
    return picture


_COARSE = 4  # pixels: the field's rim is not told finer, and is blurred, at a third of the cost
_BILINEAR = Image.Resampling.BILINEAR
