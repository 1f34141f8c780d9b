"""Where the network looked: Grad-CAM at the map before the last stage, 1/16 of the input's side.

Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2: each channel weighs as much as its
mean gradient of the grade's logit, and what speaks against the grade is left out. The last map
itself, 1/32, has 4×4 cells of a crop of 128 pixels.

The mean gradient is had without a backward pass. Summed over the places, it goes back through a
convolution as through the sum of its kernel, exactly but for the rim; and through a ReLU as
through the share of places where that is open, as if where it is open had nothing to do with the
gradient there. These weights and those of the exact gradient correlate by 0.96, and the maps find
drawn lesions alike: of the top tenth 0.149 lies on one, by the exact gradient 0.149, of the last
map's 0.109, of a random place 0.079 (119 images of four networks: examples/benchmarks/heatmaps.py).
The backward pass took a quarter of the time that the network takes, at any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dr_cli.network.resnet import BasicBlock, Bottleneck, ResNet

Block = BasicBlock | Bottleneck
STRIDE = 16  # pixels of the input to a cell of the map


class Tracer:
    """A network in eval mode, and what its last stage's weights sum to: made once, used often."""

    def __init__(self, network: ResNet) -> None:
        self.network = network
        with torch.no_grad():
            self.summed = [_Summed.of(block) for block in _blocks(network)]

    @torch.inference_mode()
    def trace(self, batch: Tensor) -> "Trace":
        """A pass over [N, 3, H, W] normalised, to be looked back at."""
        network = self.network
        maps = x = network.before_last(batch)
        gates = []
        for block in _blocks(network):
            x, opened = _pass(block, x)
            gates.append(opened)
        pooled = network.pool(x)
        return Trace(self, maps, gates, network.fc(pooled).float(), pooled.float())


@dataclass(frozen=True)
class Trace:
    """A forward pass, and what it takes to look back at it."""

    by: Tracer
    maps: Tensor
    """[N, C, ⌈H/16⌉, ⌈W/16⌉] float, before the last stage."""
    gates: Sequence[Sequence[Tensor]]
    """Of each block of the last stage and each of its ReLUs, the share of places where it is open:
    [N, C] in [0, 1]."""
    logits: Tensor
    """[N, 5] float32, as the plain pass gives them."""
    pooled: Tensor
    """[N, C] float32, what the head sees."""

    @torch.inference_mode()
    def weights(self, grade: Sequence[int] | Tensor | int) -> Tensor:
        """α of equation 1, but for a factor that is the same for all channels: [N, C] float32."""
        head = self.by.network.fc.weight.float()
        chosen = torch.as_tensor(grade, device=head.device).expand(len(self.logits))
        gradient = head[chosen]
        for summed, gates in zip(reversed(self.by.summed), reversed(self.gates), strict=True):
            gradient = summed.back(gradient, gates)
        return gradient

    @torch.inference_mode()
    def heat(self, grade: Sequence[int] | Tensor | int) -> NDArray[np.float32]:
        """Evidence for a grade in each cell: [N, h, w] in [0, 1]; the strongest is 1, and a map
        without any is 0 everywhere. grade: one for all, or one an image."""
        weights = self.weights(grade)[:, :, None, None]
        evidence = (weights * self.maps.float()).sum(1).relu()
        peak = evidence.amax((1, 2), keepdim=True)
        return (evidence / peak.clamp_min(torch.finfo(peak.dtype).tiny)).cpu().numpy()


@dataclass(frozen=True)
class _Summed:
    """A block's convolutions with the norms behind them, each summed over its kernel:
    [outputs, inputs] float32."""

    branch: Sequence[Tensor]
    shortcut: Tensor | None
    """None for what hands its input on."""

    @classmethod
    def of(cls, block: Block) -> "_Summed":
        branch, shortcut = [_sum(*step) for step in block.steps()], None
        if isinstance(block.downsample, nn.Sequential):
            convolution, norm = block.downsample
            assert isinstance(convolution, nn.Conv2d)
            shortcut = _sum(convolution, norm)
        return cls(branch, shortcut)

    def back(self, gradient: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """The gradient summed over the places, of the block's output [N, outputs] -> of its input
        [N, inputs]."""
        gradient = gradient * gates[-1]
        *first, last = self.branch
        branch = gradient @ last
        for weight, gate in zip(reversed(first), reversed(gates[:-1]), strict=True):
            branch = (branch * gate) @ weight
        return branch + (gradient if self.shortcut is None else gradient @ self.shortcut)


def _sum(convolution: nn.Conv2d, norm: nn.Module) -> Tensor:
    """norm: may have been folded into the convolution, see `resnet.inference_copy`."""
    summed = convolution.weight.float().sum((2, 3))
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_var is not None
        summed *= (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None]
    return summed


def _blocks(network: ResNet) -> list[Block]:
    """Of the last stage."""
    return cast(list[Block], list(network.layer4))


def _pass(block: Block, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """`block(x)`, and how open each of its ReLUs is."""
    y, gates = x, []
    *first, (convolution, norm) = block.steps()
    for step in first:
        y = F.relu(step[1](step[0](y)), inplace=True)
        gates.append(_opened(y))
    y = F.relu(norm(convolution(y)) + block.downsample(x), inplace=True)
    return y, [*gates, _opened(y)]


def _opened(y: Tensor) -> Tensor:
    """Of [N, C, h, w], not negative, the share of places above 0: [N, C] float32."""
    return y.sign().mean((2, 3), dtype=torch.float32)


def trace(network: ResNet, batch: Tensor) -> Trace:
    """As `Tracer.trace`, of one batch."""
    return Tracer(network).trace(batch)
