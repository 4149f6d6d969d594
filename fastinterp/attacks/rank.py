"""Kendall's tau between maps as an objective that can be climbed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._utils.require import require_positive
from ..interpreters import Interpreter
from ..ops import kendall_tau
from .map_objectives import map_reader
from .objectives import Objective, Value
from .outputs import Outputs

BLOCK = 1 << 21  # pairs at a time: 8 MiB in float32


class Rank(Objective):
    """Minus Kendall's tau-b between the true class's maps at x and x', with a smooth gradient.

    The value is the true one. It is constant almost everywhere, so the gradient is that of minus
    `soft_tau`. Ties at x' and a constant map there count as in `fastinterp.ops.kendall_tau`.

    Args:
        interpreter: of the model that is attacked.
        temperature: of `soft_tau`; the smaller, the closer to tau and the fewer pairs have a
            gradient.

    Raises:
        InputError: the temperature is not positive.
    """

    def __init__(self, interpreter: Interpreter, temperature: float = 0.1) -> None:
        self.interpreter = interpreter
        self.temperature = require_positive("Rank: temperature", temperature)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        read = map_reader(self.interpreter, labels[:, None])
        maps = read(clean).flatten(1)
        width = pair_width(maps, self.temperature)

        def value(adv: Outputs) -> Tensor:
            maps_adv = read(adv).flatten(1)
            soft = soft_tau(maps, maps_adv, width)
            tau = kendall_tau(maps, maps_adv.detach())
            return _ValueOfOne.apply(-soft, -tau.to(soft))  # type: ignore[no-any-return]

        return value


def pair_width(maps: Tensor, temperature: float) -> Tensor:
    """Maps [N, M] -> temperature times the standard deviation of their pair differences, [N].

    1 for a constant map, whose pairs have no order.
    """
    # Over all ordered pairs, the mean of (a_i - a_j)^2 is twice the unbiased variance.
    width = temperature * (2 * maps.var(dim=1)).sqrt()
    return torch.where(width > 0, width, 1)


def soft_tau(maps: Tensor, maps_adv: Tensor, width: Tensor) -> Tensor:
    """A smooth Kendall's tau: 1 / (M (M - 1)) sum_{i, j} sign(a_i - a_j) tanh((b_i - b_j) / width).

    As the width falls to 0, this becomes Kendall's tau-a. Pairs are visited in blocks of rows, so
    the memory does not grow with M^2. The gradient is computed in the same pass.

    Args:
        maps: a [N, M].
        maps_adv: b [N, M], of the same dtype and device; the gradient is for it alone.
        width: [N], positive.

    Returns:
        [N], in [-1, 1]; NaN for M < 2.
    """
    return _SoftTau.apply(maps, maps_adv, width)  # type: ignore[no-any-return]


class _SoftTau(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        count, length = a.shape
        b = b / width[:, None]
        pairs = length * (length - 1)
        rows = max(1, BLOCK // max(1, count * length))
        values, grads = [], []
        for first in range(0, length, rows):
            block = slice(first, first + rows)
            sign = torch.sign(a[:, block, None] - a[:, None])  # [N, rows, M]
            tanh = torch.tanh(b[:, block, None] - b[:, None])
            values.append((sign * tanh).sum(dim=2))
            # d tanh = 1 - tanh^2; each entry stands once in a row and once in a column.
            grads.append(sign.mul_(1 - tanh.square_()).sum(dim=2))
        grad = torch.cat(grads, dim=1) * (2 / pairs) / width[:, None] if pairs else b * torch.nan
        ctx.save_for_backward(grad)
        return torch.cat(values, dim=1).sum(dim=1) / pairs if pairs else b.sum(dim=1) * torch.nan

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None]:
        (grad,) = ctx.saved_tensors
        return None, grad_output[:, None] * grad, None


class _ValueOfOne(torch.autograd.Function):
    """The value of the second argument with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, climbed: Tensor, judged: Tensor) -> Tensor:
        return judged.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None
