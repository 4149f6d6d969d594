"""Batch normalisation whose statistics are those of all processes' images.

torch.nn.SyncBatchNorm needs a GPU and cannot be differentiated twice, which IG-Norm does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._utils import processes


class SyncedBatchNorm(_BatchNorm):
    """A batch normalisation as it is, but for its statistics in train mode."""

    def forward(self, input: Tensor) -> Tensor:
        reads_batch = self.training or self.running_mean is None
        if not reads_batch or processes.world() == 1:
            return super().forward(input)
        others = [d for d in range(input.dim()) if d != 1]
        count = input.new_full((1,), input.numel() / max(input.shape[1], 1))
        moments = torch.cat([input.sum(others), count])
        *_, total = summed = _Sum.apply(moments)
        mean = summed[:-1] / total
        shape = [1, -1, *[1] * (input.dim() - 2)]
        centred = input - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(others)) / total
        self._remember(mean.detach(), variance.detach(), total.detach())
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result  # type: ignore[no-any-return]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum: Any = self.momentum
        if momentum is None:
            momentum = 1.0 / self.num_batches_tracked
        unbiased = variance * (total / (total - 1))
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased, momentum)


class _Sum(torch.autograd.Function):
    """The sum over the processes. As all of them read it, its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        return processes.add_up(mine.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Sum.apply(grad)


def synchronise(model: nn.Module) -> None:
    """Let the batch normalisations of a network share their statistics, in place.

    Their class changes and nothing else does, so parameters, names and hooks stay.
    """
    for module in model.modules():
        kind = type(module)
        if isinstance(module, _BatchNorm) and kind in _KNOWN:
            module.__class__ = type(f"Synced{kind.__name__}", (SyncedBatchNorm, kind), {})


_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
