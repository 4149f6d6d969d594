"""All steps of projected gradient ascent in the linf ball in one launch, on a GPU.

For stacks of convolutions with ReLUs between them whose output are class maps, as `models.fold`
makes them of the paper's Small. A block of the GPU takes an image through all steps with weights,
maps, gradients and x' in its shared memory (csrc/kernels/climb.cuh): up to 227 KiB on an H100, of
which MNIST Small takes 174. Where a network does not fit, the steps run one by one.

FASTINTERP_CLIMB=0 turns it off, and so does `one_by_one`, to compare the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .._utils.require import require_one_of
from . import _backend
from .conv_stack import Convolution
from .conv_stack import reference as stack_reference
from .discrepancy import Reduction
from .discrepancy import reference as discrepancy_reference
from .pgd_step import reference as step_reference

MOST_CONVOLUTIONS = 6  # csrc/kernels/climb.cuh


@dataclass(frozen=True)
class Target:
    """What a climb maximises: the sum of three terms, each times its weight.

    The class maps M [N, C, h, w] are the output of the last convolution, the logits are their means
    over the positions plus `bias`.

    Attributes:
        labels: [N], int64.
        bias: [C] or None.
        cross_entropy: weight of the cross-entropy at x' (negative for a targeted attack).
        kl: weight of KL(p || softmax of the logits at x').
        discrepancy: weight of `ops.discrepancy` between M and `maps`.
        log_p: [N, C], the logarithms of p; where `kl` is not 0.
        maps: M at the clean images; where `discrepancy` is not 0.
        reduction: of the discrepancy.
    """

    labels: Tensor
    bias: Tensor | None = None
    cross_entropy: float = 0.0
    kl: float = 0.0
    discrepancy: float = 0.0
    log_p: Tensor | None = None
    maps: Tensor | None = None
    reduction: Reduction = "weighted"

    def value(self, maps: Tensor) -> Tensor:
        """Plain torch: M at x' [N, C, h, w] -> [N]."""
        logits = maps.mean(dim=(2, 3))
        logits = logits if self.bias is None else logits + self.bias
        total = torch.zeros_like(logits[:, 0])
        if self.cross_entropy:
            loss = F.cross_entropy(logits, self.labels, reduction="none")
            total = total + self.cross_entropy * loss
        if self.kl and self.log_p is not None:
            log_q = F.log_softmax(logits, dim=1)
            total = total + self.kl * (self.log_p.exp() * (self.log_p - log_q)).sum(dim=1)
        if self.discrepancy and self.maps is not None:
            classes = torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
            distance = discrepancy_reference(
                self.maps, maps, classes, self.labels, self.bias, self.reduction
            )
            total = total + self.discrepancy * distance
        return total


class Climbed(NamedTuple):
    """Attributes:
    x_adv: x' after the last step, [N, in, H, W].
    grad: the gradient before the last step, likewise; NaN in an image one of whose gradients
        was not finite.
    value: the value before the last step, [N].
    """

    x_adv: Tensor
    grad: Tensor
    value: Tensor


# 1. Reference
def reference(
    x: Tensor,
    start: Tensor,
    convolutions: Sequence[Convolution],
    target: Target,
    steps: int,
    step_size: float | Tensor,
    eps: float | Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    drawn: bool = False,
) -> Climbed:
    """Plain torch, step by step."""
    z = start
    if drawn:
        radius = eps.reshape(-1, 1, 1, 1) if isinstance(eps, Tensor) else eps
        z = (x + radius * (2 * start - 1)).clamp(lower, upper)
    grad, value, watched = torch.zeros_like(x), x.new_zeros(len(x)), x.new_zeros(len(x))
    for _ in range(steps):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            values = target.value(stack_reference(z, convolutions))
            (grad,) = torch.autograd.grad(values.sum(), z)
        value = values.detach()
        watched = watched + (0 * grad).flatten(1).sum(dim=1)
        z = step_reference(z.detach(), grad, x, step_size, eps, lower, upper)
    return Climbed(z.detach(), grad + watched.view(-1, 1, 1, 1), value + watched)


# 2. Fake
def _fake(x: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    contiguous = torch.empty_like(x, memory_format=torch.contiguous_format)
    return torch.empty_like(x), contiguous, x.new_empty(len(x))


# 3. Autograd: none. x' is a point to evaluate at, which nothing differentiates.


# 4. Backend: a kernel for GPUs; plain torch elsewhere.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::climb", _fake)


_SWITCH = "FASTINTERP_CLIMB"
_on = require_one_of(_SWITCH, os.environ.get(_SWITCH, "1"), ("0", "1")) == "1"


@contextmanager
def one_by_one() -> Iterator[None]:
    """Turn the kernel off for a while, in all threads, to compare."""
    global _on
    before, _on = _on, False
    try:
        yield
    finally:
        _on = before


def _native(name: str) -> Any:
    return getattr(torch.ops.fastinterp, name)


def available(x: Tensor) -> bool:
    """Whether there is a kernel for images like x."""
    if not (_on and x.is_cuda and x.dtype == torch.float32 and type(x) is Tensor):
        return False
    return not torch.compiler.is_compiling() and _backend.is_native(x)


def fits(x: Tensor, convolutions: Sequence[Convolution]) -> bool:
    """Whether the kernel takes such convolutions, and a block of x's GPU can hold them."""
    if not 0 < len(convolutions) <= MOST_CONVOLUTIONS or x.dim() != 4:
        return False
    if any(c.pool > 1 or c.weight.dtype != x.dtype for c in convolutions):
        return False
    found: bool = _native("climb_fits")(
        x, [c.weight for c in convolutions], _geometry(convolutions)
    )
    return found


def _geometry(convolutions: Sequence[Convolution]) -> list[int]:
    return [number for c in convolutions for number in (c.stride, *c.padding)]


# 5. Public within the library
def climb(
    x: Tensor,
    start: Tensor,
    convolutions: Sequence[Convolution],
    target: Target,
    steps: int,
    step_size: float | Tensor,
    eps: float | Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    drawn: bool = False,
) -> Climbed:
    """Steps x' <- x' + step_size * sign(gradient of the target), projected, as `ops.pgd_step` does.

    Nothing is recorded for autograd, and nothing waits for a GPU.

    Args:
        x: clean images [N, in, H, W].
        start: x' to start at; with `drawn` numbers u of [0, 1), which start at x + eps (2 u - 1),
            clamped to the range.
        convolutions: from the images on, without pooling; their output are the class maps.
        target: what is maximised.
        steps: how many steps.
        step_size, eps: numbers, or tensors [N] or [1].
        lower, upper: the range of valid pixels.

    Raises:
        RuntimeError: the arguments do not fit each other.
    """
    with torch.no_grad():
        if not (available(x) and fits(x, convolutions)):
            return reference(
                x, start, convolutions, target, steps, step_size, eps, lower, upper, drawn=drawn
            )
        return native(
            x, start, convolutions, target, steps, step_size, eps, lower, upper, drawn=drawn
        )


def native(
    x: Tensor,
    start: Tensor,
    convolutions: Sequence[Convolution],
    target: Target,
    steps: int,
    step_size: float | Tensor,
    eps: float | Tensor,
    lower: float,
    upper: float,
    *,
    drawn: bool,
) -> Climbed:
    """The kernel's part of `climb`."""
    step_rows = step_size if isinstance(step_size, Tensor) else None
    eps_rows = eps if isinstance(eps, Tensor) else None
    result = _native("climb")(
        x,
        start,
        drawn,
        steps,
        0.0 if isinstance(step_size, Tensor) else step_size,
        0.0 if isinstance(eps, Tensor) else eps,
        step_rows,
        eps_rows,
        lower,
        upper,
        [c.weight for c in convolutions],
        [c.bias for c in convolutions],
        _geometry(convolutions),
        target.bias,
        target.labels,
        target.maps,
        target.log_p,
        [target.cross_entropy, target.kl, target.discrepancy],
        target.reduction == "weighted",
    )
    return Climbed(*result)
