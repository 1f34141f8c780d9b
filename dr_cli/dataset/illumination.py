"""Light taken out of a crop: what is left is how each pixel differs from what lies round it.

Cameras, exposure and the shade at the rim add to a picture's channels and multiply them; lesions
are told by their contrast to the surround. So each channel loses its local mean, which is what Ben
Graham won Kaggle's contest of 2015 with, and is divided by its local deviation: local contrast
normalisation (Jarrett et al., ICCV 2009, section 3).
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 1 / 12  # of the side: the standard deviation of the Gaussian over which means are taken
CELLS = 32  # a side, on which they are computed
DARK = 15.0  # of 255: what is darker in every channel is no field
QUIET = 4.0  # of 255: added to the deviation, so that the noise of an even place stays small
HIGHEST = 6.0  # deviations: what lies further out is cut off


def even_out(pixels: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] in [0, 255] -> float32 [N, 3, H, W]: (pixel - mean) / (deviation + QUIET).

    Mean and deviation are the channel's round the pixel, under a Gaussian of REACH and one of twice
    that; both over the field alone, so that nothing of the black beyond comes into them. 0 beyond
    the field, as for a pixel that does not differ from its surround; in [-HIGHEST, HIGHEST].
    """
    field = (pixels.amax(1, keepdim=True) >= DARK).float()
    field = -F.max_pool2d(-field, 3, 1, 1)  # the rim is half black
    values = pixels * field
    away = values.sub_(_mean(values, field, REACH)).mul_(field)
    deviation = _mean(away.square(), field, 2 * REACH).clamp_min_(0).sqrt_()
    return away.div_(deviation.add_(QUIET)).clamp_(-HIGHEST, HIGHEST)


def _mean(values: Tensor, field: Tensor, reach: float) -> Tensor:
    """The mean of values [N, C, H, W] round each pixel, over the field [N, 1, H, W] of 0 and 1,
    beyond which the values are 0."""
    return _blur(values, reach).div_(_blur(field, reach).clamp_min_(1e-3))


def _blur(values: Tensor, reach: float) -> Tensor:
    """[N, C, H, W] under a Gaussian, by way of CELLS x CELLS: thin products, which cost the same at
    every reach (a convolution would be half as wide as the picture)."""
    down, up = _passes(values.shape[2], reach, values.device)
    right, back = _passes(values.shape[3], reach, values.device)
    return up @ (down @ values @ right.T) @ back.T


@lru_cache(maxsize=16)
def _passes(size: int, reach: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels to cells [CELLS, size] and cells to pixels [size, CELLS], each a Gaussian of half the
    variance whose rows sum to 1."""
    pixel, cell = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (size, CELLS))
    weight = torch.exp(-((cell[:, None] - pixel) ** 2) / reach**2)
    down, up = weight / weight.sum(1, keepdim=True), (weight / weight.sum(0)).T
    return down.float().to(device), up.float().contiguous().to(device)
