"""A map over a photograph's crop: its colours, and where its cells lie. Free of torch."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    return np.asarray(_enlarge(cells.astype(np.float32), (0, 0, width, height), pitch))


def _enlarge(
    cells: NDArray[np.float32 | np.uint8], place: tuple[int, int, int, int], pitch: float
) -> Image.Image:
    """place: left, top, right, bottom of what is wanted, in pixels shown."""
    # By Pillow, as exact as weights in matrices (2e-7), and on one thread: those of numpy's
    # products wait for each other, which took 4 to 10 ms a picture where others work beside.
    padded = np.pad(cells, (0, 1), mode="edge")  # beyond the last cell, that cell
    start = 0.5 - 0.5 / pitch  # a pixel's and a cell's middle are at their halves
    left, top, right, bottom = place
    box = (start + left / pitch, start + top / pitch, start + right / pitch, start + bottom / pitch)
    return Image.fromarray(padded).resize((right - left, bottom - top), _BILINEAR, box)


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


@cache
def _palette() -> bytes:
    """Of each strength the colour and its opacity: 256 times RGBA."""
    opacity = np.rint(STRONGEST * np.arange(256)).astype(np.uint8)
    return np.column_stack([colours(), opacity]).tobytes()


def overlay(pixels: NDArray[np.uint8], cells: NDArray[np.floating], pitch: float) -> Image.Image:
    """The crop with the map over it, as opaque as the evidence is strong; none beyond the field.

    pixels: uint8 RGB, [3, H, W]; cells: [h, w], >= 0, of which the strongest within the field is
    shown full. pitch: pixels from cell to cell.
    """
    _, height, width = pixels.shape
    field = field_of(pixels[:, ::_COARSE, ::_COARSE])
    rows, columns = field.shape
    within = upsample(cells, rows, columns, pitch / _COARSE) * field
    strength = np.rint(within * (255 / max(float(within.max()), 1e-30))).astype(np.uint8)
    picture = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels])
    if found := Image.fromarray(strength).getbbox():
        left, top = (max(0, end - 1) * _COARSE for end in found[:2])
        right, bottom = ((end + 1) * _COARSE for end in found[2:])
        place = (left, top, min(width, right), min(height, bottom))
        # Coloured and mixed by Pillow, three times as fast as by numpy.
        over = _enlarge(strength, place, _COARSE)
        over.putpalette(_palette(), "RGBA")
        over = over.convert("RGBA")
        picture.paste(over, place, over)
    return picture


# Pixels. The field's rim is not told finer, and is blurred; a map, linear over 16 pixels or more,
# is the same within 4% at its peaks and 1% elsewhere. At a pixel's own scale it took twice as long.
_COARSE = 4
_BILINEAR = Image.Resampling.BILINEAR
