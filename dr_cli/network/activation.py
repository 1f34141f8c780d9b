"""Where the network looked: Grad-CAM at the map before the last stage, 1/16 of the input's side.

Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2: each channel weighs as much as its
mean gradient of the grade's logit, and what speaks against the grade is left out. The last map
itself, 1/32, has 4×4 cells of a crop of 128 pixels. Of this map's top tenth 0.26 lies on drawn
lesions there, of the last one's 0.14, of that of twice the crop 0.22, of a random place 0.09:
examples/benchmarks/heatmaps.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dr_cli.network.resnet import ResNet

STRIDE = 16  # pixels of the input to a cell of the map


@dataclass(frozen=True)
class Trace:
    """A forward pass whose last stage can be walked back, once."""

    maps: Tensor
    """[N, C, ⌈H/16⌉, ⌈W/16⌉] float, before the last stage."""
    logits: Tensor
    """[N, 5] float32, as the plain pass gives them."""
    pooled: Tensor
    """[N, C] float32, what the head sees."""

    def heat(self, grade: Sequence[int] | Tensor | int) -> NDArray[np.float32]:
        """Evidence for a grade in each cell: [N, h, w] in [0, 1]; the strongest is 1, and a map
        without any is 0 everywhere. grade: one for all, or one an image.

        It costs a backward pass through the last stage, and that of no weights.
        """
        chosen = torch.as_tensor(grade, device=self.logits.device).expand(len(self.logits))
        picked = self.logits.gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(picked, self.maps)
        with torch.no_grad():
            weights = gradient.float().mean((2, 3), keepdim=True)  # α of equation 1
            evidence = (weights * self.maps.float()).sum(1).relu()
            peak = evidence.amax((1, 2), keepdim=True)
            return (evidence / peak.clamp_min(torch.finfo(peak.dtype).tiny)).cpu().numpy()


def trace(network: ResNet, batch: Tensor) -> Trace:
    """A pass over [N, 3, H, W] normalised, to be looked back at."""
    with torch.no_grad():
        maps = network.before_last(batch)
    with torch.enable_grad():
        maps.requires_grad_()
        pooled = network.pool(network.layer4(maps))
        return Trace(maps, network.fc(pooled).float(), pooled.detach().float())
