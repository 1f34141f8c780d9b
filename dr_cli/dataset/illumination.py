"""Light taken out of a crop: what is left is how each pixel differs from what lies round it.

Cameras, exposure and the shade at the rim multiply a picture's channels; lesions are told by their
contrast to the surround (0.83-0.96 of its green for a microaneurysm, see `sample.lesions`). So each
channel is divided by its local mean. Subtracting that mean is Ben Graham's way, which won Kaggle's
contest of 2015; dividing takes the exposure out, too.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 1 / 12  # of the side: the standard deviation of the Gaussian that is the surround
CELLS = 32  # a side, that the surround is computed on: 0.53 of the deviation of each pass apart
FLOOR = 15.0  # of 255: what is darker in all channels is no field; added to both of a ratio
HALF = 127.5


def divide_by_surround(pixels: Tensor) -> Tensor:
    """uint8 [N, 3, S, S] in [0, 255] -> float32 [N, 3, S, S], HALF * (pixel / surround - 1).

    The surround is the Gaussian mean of the channel over the field, so that nothing of the black
    beyond comes into it; FLOOR on both sides keeps the noise of dark channels small. 0 beyond the
    field, as for a pixel that does not differ from its surround.
    """
    values = pixels.float()
    field = (values.amax(1, keepdim=True) >= FLOOR).float()
    field = -F.max_pool2d(-field, 3, 1, 1)  # the rim is half black
    surround = _blur(values * field) / _blur(field).clamp_min(1e-3)
    return ((values + FLOOR) / (surround + FLOOR) - 1) * field * HALF


def _blur(values: Tensor) -> Tensor:
    """[N, C, S, S] under the Gaussian, by way of CELLS x CELLS: two thin products a side, which
    cost the same at every reach (a convolution at 512 px would be wider than half the picture)."""
    down, up = _passes(values.shape[-1])
    down, up = down.to(values.device), up.to(values.device)
    return up @ (down @ values @ down.T) @ up.T


@lru_cache(maxsize=8)
def _passes(size: int) -> tuple[Tensor, Tensor]:
    """Pixels to cells [CELLS, size] and cells to pixels [size, CELLS]; rows sum to 1. Either is a
    Gaussian of half the variance."""
    pixel, cell = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (size, CELLS))
    weight = torch.exp(-((cell[:, None] - pixel[None]) ** 2) / REACH**2)
    down = weight / weight.sum(1, keepdim=True)
    up = weight.T / weight.T.sum(1, keepdim=True)
    return down.float(), up.float()
