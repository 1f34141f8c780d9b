"""Where the network looked: class activation maps, without a backward pass.

A ResNet ends in global average pooling and one linear layer. For such a network Grad-CAM's
weights, the pooled gradients of a logit, are the layer's own weights up to one factor
(Selvaraju et al. 2017, arXiv 1610.02391, section 3.1), so that the class activation map of Zhou
et al. (arXiv 1512.04150) is Grad-CAM.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dr_cli.network.resnet import ResNet

STRIDE = 32  # pixels of the input to a cell of the last feature map

# Every seventeenth entry of viridis (Smith, van der Walt; CC0), which rises evenly in lightness
# and reads the same to the colour-blind. Its blues and greens stand out from a fundus's oranges.
VIRIDIS = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
    "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)


def class_activation(network: ResNet, batch: Tensor, grade: Tensor | int) -> NDArray[np.float32]:
    """Evidence for `grade` in each cell: [N, 3, H, W] normalised -> [N, h, w] in [0, 1].

    grade: one for all, or one an image, [N] int64. See `activation`.
    """
    with torch.inference_mode():
        return activation(network.features(batch), network.fc.weight, grade)


def activation(features: Tensor, weight: Tensor, grade: Tensor | int) -> NDArray[np.float32]:
    """The map from what a forward pass has anyway: [N, C, h, w] float -> [N, h, w] in [0, 1].

    weight: the head's, [5, C]. Evidence against the grade is 0, the strongest for it is 1; a
    map without any evidence for it is 0 everywhere.
    """
    chosen = torch.as_tensor(grade, device=weight.device).expand(len(features))
    with torch.inference_mode():
        evidence = torch.einsum("nchw,nc->nhw", features.float(), weight[chosen].float()).relu()
        peak = evidence.amax((1, 2), keepdim=True)
        return (evidence / peak.clamp_min(torch.finfo(peak.dtype).tiny)).cpu().numpy()


def upsample(cells: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """A map [h, w] over the pixels it was made from, bilinear: [height, width] float32.

    Each of a ResNet's five halvings keeps pixels 0, 2, 4, …, so that cell i looks at pixel 32·i
    and around it. An ordinary resize would place it at 32·i + 15.5, half a cell too far.
    """
    rows, columns = (_between(n, m) for n, m in zip((height, width), cells.shape, strict=True))
    return (rows @ cells @ columns.T).astype(np.float32)


def _between(pixels: int, cells: int) -> NDArray[np.float64]:
    """Weights of linear interpolation, [pixels, cells]; beyond the last cell, that cell."""
    position = np.arange(pixels) / STRIDE
    return np.stack([np.interp(position, range(cells), one) for one in np.eye(cells)], axis=1)


def colours() -> NDArray[np.uint8]:
    """The colour of each strength: [256, 3] RGB."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS.split()], float)
    place = np.linspace(0, len(anchors) - 1, 256)
    table = [np.interp(place, range(len(anchors)), channel) for channel in anchors.T]
    return np.rint(np.stack(table, axis=1)).astype(np.uint8)


def overlay(
    pixels: NDArray[np.uint8], cells: NDArray[np.floating], strongest: float = 0.6
) -> Image.Image:
    """The crop with the map over it, as opaque as the evidence is strong.

    pixels: uint8 RGB, [3, H, W] or [H, W, 3]; cells: [h, w] in [0, 1]; strongest: the opacity,
    in [0, 1], where the map is 1.
    """
    picture: NDArray[Any] = pixels if pixels.shape[-1] == 3 else pixels.transpose(1, 2, 0)
    strength = upsample(cells, *picture.shape[:2]).clip(0, 1)
    colour = colours()[np.rint(strength * 255).astype(np.uint8)]
    opacity = (strongest * strength)[..., None]
    return Image.fromarray(np.rint(picture * (1 - opacity) + colour * opacity).astype(np.uint8))
