"""A map over a photograph's crop: its colours, and where its cells lie. Free of torch."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRIDE = 32  # pixels of the input to a cell of the last feature map

# Every seventeenth entry of viridis (Smith, van der Walt; CC0), which rises evenly in lightness
# and reads the same to the colour-blind. Its blues and greens stand out from a fundus's oranges.
VIRIDIS = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
    "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)
STRONGEST = 0.6  # opacity where the map is 1


def upsample(cells: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """A map [h, w] over the pixels it was made from, bilinear: [height, width] float32.

    Each of a ResNet's five halvings keeps pixels 0, 2, 4, …, so that cell i looks at pixel 32·i
    and around it. An ordinary resize would place it at 32·i + 15.5, half a cell too far.
    """
    rows, columns = (_weigh(n, m) for n, m in zip((height, width), cells.shape, strict=True))
    return (rows @ cells @ columns.T).astype(np.float32)


def _weigh(pixels: int, cells: int) -> NDArray[np.float64]:
    """Weights of linear interpolation, [pixels, cells]; beyond the last cell, that cell."""
    position = np.arange(pixels) / STRIDE
    return np.stack([np.interp(position, range(cells), one) for one in np.eye(cells)], axis=1)


def colours() -> NDArray[np.uint8]:
    """The colour of each strength: [256, 3] RGB."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS.split()], float)
    place = np.linspace(0, len(anchors) - 1, 256)
    table = [np.interp(place, range(len(anchors)), channel) for channel in anchors.T]
    return np.rint(np.stack(table, axis=1)).astype(np.uint8)


def overlay(pixels: NDArray[np.uint8], cells: NDArray[np.floating]) -> Image.Image:
    """The crop with the map over it, as opaque as the evidence is strong.

    pixels: uint8 RGB, [3, H, W]; cells: [h, w] in [0, 1].
    """
    picture = pixels.transpose(1, 2, 0)
    strength = upsample(cells, *picture.shape[:2]).clip(0, 1)
    colour = colours()[np.rint(strength * 255).astype(np.uint8)]
    opacity = (STRONGEST * strength)[..., None]
    return Image.fromarray(np.rint(picture * (1 - opacity) + colour * opacity).astype(np.uint8))
