"""One step of projected gradient ascent on a batch of images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._utils.errors import InputError
from .._utils.require import require_nonnegative, require_one_of
from . import _backend
from ._validate import are_alike, mismatch, require_readable

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


# 1. Reference
def project_l2(delta: Tensor, eps: Tensor) -> Tensor:
    """Rows delta [N, d] -> the nearest rows with l2 norm at most eps [N, 1]."""
    size = torch.linalg.vector_norm(delta, ord=2, dim=1, keepdim=True)
    return torch.where(size > eps, delta * (eps / size), delta)


def project_l1(delta: Tensor, eps: Tensor) -> Tensor:
    """Rows delta [N, d] -> the nearest rows with l1 norm at most eps [N, 1].

    The threshold is found by sorting (Duchi et al., ICML 2008, figure 1).
    """
    size = delta.abs()
    ordered = size.sort(dim=1, descending=True).values
    ranks = torch.arange(1, delta.shape[1] + 1, device=delta.device, dtype=delta.dtype)
    excess = (ordered.cumsum(dim=1) - eps) / ranks  # [N, d]
    last = (ordered > excess).sum(dim=1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0)
    shrunk = delta.sign() * (size - threshold).clamp(min=0)
    return torch.where(size.sum(dim=1, keepdim=True) > eps, shrunk, delta)


def _unit(grad: Tensor, order: int) -> Tensor:
    """Rows of grad [N, d] divided by their norm; zeros for a row of zeros, or one not finite."""
    if grad.shape[1] == 0:
        return grad
    # Scaled first: squares of very small or large numbers leave the range of their type.
    largest = grad.abs().amax(dim=1, keepdim=True)
    moves = (largest > 0) & largest.isfinite()
    scaled = torch.where(moves, grad / largest, torch.zeros_like(grad))
    norm = torch.linalg.vector_norm(scaled, ord=order, dim=1, keepdim=True)
    return torch.where(moves, scaled / norm, scaled)


def reference(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: float | Tensor,
    eps: float | Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    norm: Norm = "linf",
) -> Tensor:
    """Plain torch: x_adv, grad, x [N, ...]; step_size and eps numbers or [N] -> x_adv' [N, ...]."""
    step_size = _rows(step_size, x)  # [N, 1]
    eps = _rows(eps, x)
    flat_x, flat_adv, flat_grad = x.flatten(1), x_adv.flatten(1), grad.flatten(1)
    if norm == "linf":
        moved = flat_adv + step_size * flat_grad.sign()
        projected = torch.minimum(torch.maximum(moved, flat_x - eps), flat_x + eps)
    else:
        unit = _unit(flat_grad, 2 if norm == "l2" else 1)
        delta = flat_adv + step_size * unit - flat_x
        projected = flat_x + (project_l2 if norm == "l2" else project_l1)(delta, eps)
    return projected.clamp(lower, upper).view_as(x)


def _rows(value: float | Tensor, x: Tensor) -> Tensor:
    """A number or [N] tensor -> [N, 1] (or [1, 1]) in x's dtype, on x's device."""
    if isinstance(value, Tensor):
        return value.to(x.dtype).reshape(-1, 1)
    return torch.full((1, 1), value, dtype=x.dtype, device=x.device)


# 2. Fake
def _fake(x_adv: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x_adv)


def _fake_inplace(x_adv: Tensor, *_: object) -> None:
    return None


# 3. Autograd: none. The step is an update rule, which nothing differentiates; the op runs below
# autograd (csrc/autograd/pgd_step.cpp).


# 4. Backend: kernels in C++ and CUDA; plain torch where they were not built.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::pgd_step", _fake)
    torch.library.register_fake("fastinterp::pgd_step_", _fake_inplace)


# 5. Public
def pgd_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: float | Tensor,
    eps: float | Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    norm: Norm = "linf",
    *,
    inplace: bool = False,
    validate: bool = True,
) -> Tensor:
    """Ascent step, projection onto the eps-ball around x, and clamp to [lower, upper], fused.

    linf: x_adv + step_size * sign(grad), with sign(0) = 0 (Madry et al., 2018).
    l2, l1: x_adv + step_size * grad / ||grad||_p per image (a gradient of zeros, or one that is not
    finite, moves nothing); the l1 projection is that of Duchi et al. (2008). The clamp comes last;
    where x lies in [lower, upper] it cannot leave the ball. Not differentiable: runs without
    autograd.

    Args:
        x_adv: current images [N, ...], floating point.
        grad: gradient of the objective, same shape, dtype and device.
        x: the clean images, same shape, dtype and device.
        step_size: in pixel units (linf) or as the length of the step (l2, l1): a number, or one
            for each image as a tensor [N] (a one-element tensor serves all).
        eps: radius of the ball, likewise.
        lower, upper: the range of valid pixels.
        norm: "linf", "l2" or "l1".
        inplace: write the result into x_adv and return it.
        validate: check that step_size and eps tensors hold finite numbers >= 0. On a GPU the check
            waits for the device; loops that checked before pass False. Numbers are always checked.

    Returns:
        x_adv' [N, ...]; x_adv itself if `inplace`.

    Raises:
        InputError: shapes, dtypes, devices, norm, range, or a negative or NaN step_size or eps.
    """
    if not (are_alike(x_adv, grad, x) and x_adv.shape == grad.shape == x.shape and x.dim() > 0):
        raise mismatch(
            "pgd_step",
            "x_adv, grad and x [N, ...], of one shape and floating-point dtype, on one device",
            x_adv=x_adv,
            grad=grad,
            x=x,
        )
    if not isinstance(norm, str) or norm not in NORMS:
        require_one_of("pgd_step: norm", norm, NORMS)
    if not isinstance(inplace, bool):
        require_one_of("pgd_step: inplace", inplace, (False, True))
    if not lower <= upper:
        raise InputError(f"pgd_step: lower must not exceed upper, got {lower} and {upper}.")
    step_number, step_rows = _number_or_rows("step_size", step_size, x, validate)
    eps_number, eps_rows = _number_or_rows("eps", eps, x, validate)
    if not _backend.is_native(x):
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            result = reference(x_adv, grad, x, step_size, eps, lower, upper, norm)
            return x_adv.copy_(result) if inplace else result
    arguments = (
        x_adv, grad, x, step_number, eps_number, step_rows, eps_rows, lower, upper,
        NORMS.index(norm),
    )  # fmt: skip
    if inplace:
        torch.ops.fastinterp.pgd_step_(*arguments)
        return x_adv
    return torch.ops.fastinterp.pgd_step(*arguments)  # type: ignore[no-any-return]


def _number_or_rows(
    name: str, value: float | Tensor, x: Tensor, validate: bool
) -> tuple[float, Tensor | None]:
    """A checked step size or radius as the op takes it: a number, or a tensor that overrides it."""
    if not isinstance(value, Tensor):
        if type(value) is not float or not 0 <= value < math.inf:  # a float takes no further call
            value = require_nonnegative(f"pgd_step: {name}", value)
        return value, None
    if not are_alike(x, value) or (value.numel() != 1 and value.shape != x.shape[:1]):
        expected = f"{name} as a number, or a tensor [N] or [1] of the images' dtype and device"
        raise mismatch("pgd_step", expected, x=x, **{name: value})
    if validate and not torch.compiler.is_compiling():
        require_readable("pgd_step", name, value)
        valid = (value >= 0) & value.isfinite()
        if not valid.all():
            raise InputError(f"pgd_step: {name} must hold finite numbers >= 0.")
    return 0.0, value
