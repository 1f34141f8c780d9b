"""The moving average of a network's weights over the steps of its training."""

import copy
from typing import Any

import torch
from torch import Tensor

from dr_cli.network.resnet import ResNet

UNKNOWN = 10**6  # steps of an average that a run of before kept without counting them


class Average:
    """Weights and batch statistics, each step's with weight decay^(steps ago), and no others.

    The network that training began with is not in it: like Adam's moments (Kingma & Ba, ICLR 2015,
    section 3) the average is divided by what its weights sum to, or a decay of 0.999 would be 62%
    initial weights after 480 steps. Batch statistics are averaged with the weights that they
    belong to; those of the last step alone are another network's.
    """

    def __init__(self, network: ResNet, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = [value.detach().clone() for value in _find_values(network)]

    @torch.no_grad()
    def update(self, network: ResNet) -> None:
        """After a step."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        torch._foreach_lerp_(self.values, _find_values(network), share)

    @torch.no_grad()
    def build(self, network: ResNet) -> ResNet:
        """A copy of the network that has the averages."""
        mean = copy.deepcopy(network)
        for mine, averaged in zip(_find_values(mean), self.values, strict=True):
            mine.copy_(averaged)
        return mean

    def state(self) -> dict[str, Any]:
        """What `load` takes; loads with `weights_only=True`."""
        return {"average": self.values, "average_steps": self.steps}

    @torch.no_grad()
    def load(self, state: dict[str, Any], network: ResNet) -> None:
        """What `state` gave, or what runs of before kept: weights alone; then the network's own
        batch statistics are gone on with."""
        kept = state["average"]
        rest = _find_values(network)[len(kept) :]
        for mine, saved in zip(self.values, [*kept, *rest], strict=True):
            mine.copy_(saved)
        self.steps = state.get("average_steps", UNKNOWN)


def _find_values(network: ResNet) -> list[Tensor]:
    """Parameters, then running means and variances."""
    statistics = (b for b in network.buffers() if b.is_floating_point())
    return [*network.parameters(), *statistics]
