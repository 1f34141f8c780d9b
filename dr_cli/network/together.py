"""A network that several processes train together: each on its share of every batch.

The gradients are averaged by torch's DistributedDataParallel, while they are computed.
"""

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from dr_cli.ranks import Ranks

# Photographs of a process's share from which batch statistics may be its own: of 16 and more they
# cost next to nothing, of 8 a point of ImageNet accuracy, of 2 eleven (Wu & He, arXiv 1803.08494,
# figure 1 and table 2).
SHARED_BELOW = 16


def spread(network: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """The network's forward pass for one of several processes, whose gradients are averaged. It
    shares the network's weights, which are the first one's from now on."""
    if ranks.alone:
        return network
    from torch.nn.parallel import DistributedDataParallel

    own = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters  # renamed in torch 2.14
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(network, own, **options)


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Lets every norm of the network take its statistics from the whole batch, in place; its state
    dict stays as it is. On a GPU by torch's SyncBatchNorm, which has no form for a CPU."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm


class SharedNorm(nn.BatchNorm2d):
    """Batch normalisation over what all processes hold: [n, C, H, W] -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """In eval mode as any other."""
        if not self.training:
            return super().forward(x)
        assert self.momentum is not None
        tracked = (self.running_mean, self.running_var, self.num_batches_tracked)
        running_mean, running_var, batches = cast(tuple[Tensor, Tensor, Tensor], tracked)
        batches.add_(1)
        y, mean, var, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():  # torch keeps the unbiased variance
            running_mean.lerp_(mean, self.momentum)
            running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """Ioffe & Szegedy, arXiv 1502.03167, algorithm 1 and its gradients, with sums over processes.

    torch's kernel for given statistics does the large part of both ways; what is left of the
    gradient, that the statistics depend on x, is two sums a channel and a multiply-add.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float32)
        each = _gather(torch.cat([count, mean, var]))
        counts, means, variances = each.split([1, len(mean), len(mean)], 1)  # [ranks, 1 or C]
        share = counts / counts.sum()
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0)
        y = torch.batch_norm(
            x, weight, bias, mean, var, False, 0.0, eps, torch.backends.cudnn.enabled
        )
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, counts.sum()
        ctx.mark_non_differentiable(mean, var, ctx.count)
        return y, mean, var, ctx.count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        # Gradients as if mean and variance were given: weight * deviation⁻¹ * dy, Σ dy x̂, Σ dy.
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([d_weight, d_bias]).float()
        torch.distributed.all_reduce(sums)
        along, level = (sums / ctx.count).chunk(2)  # the means of dy x̂ and of dy
        inverse = torch.rsqrt(var + ctx.eps)
        slope = weight * inverse.square() * along
        offset = weight * inverse * level - slope * mean
        dx = dx - (x * _wide(slope, x) + _wide(offset, x))
        return dx, d_weight, d_bias, None


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1] of the same type."""
    return values.to(like.dtype)[None, :, None, None]


def _gather(own: Tensor) -> Tensor:
    """[k] of each process -> [ranks, k]."""
    from torch import distributed as dist

    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return torch.stack(found)
