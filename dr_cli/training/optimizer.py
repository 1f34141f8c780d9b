"""What changes the weights: of a run, and of the drawn start that it may begin with."""

import torch
from torch import nn

from dr_cli.training.config import TrainConfig


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on weights alone: not on biases and normalisation's scale and shift."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    other = [p for p in network.parameters() if p.ndim <= 1]
    decay = config.weight_decay
    groups = [{"params": decayed, "weight_decay": decay}, {"params": other, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate, fused=True)
    momentum, nesterov = config.momentum, config.nesterov and config.momentum > 0
    return torch.optim.SGD(
        groups, config.learning_rate, momentum=momentum, nesterov=nesterov, fused=True
    )
