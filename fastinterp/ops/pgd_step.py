"""One step of projected gradient ascent on a batch of images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .._utils.errors import InputError
from . import _backend
from ._validate import are_alike, require_like, require_same_kind, require_tensor, shape_of

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


# 1. Reference
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
    elif norm == "l2":
        delta = flat_adv + step_size * _unit(flat_grad, 2) - flat_x
        size = torch.linalg.vector_norm(delta, ord=2, dim=1, keepdim=True)
        projected = flat_x + torch.where(size > eps, delta * (eps / size), delta)
    else:
        delta = flat_adv + step_size * _unit(flat_grad, 1) - flat_x
        projected = flat_x + project_l1(delta, eps)
    return projected.clamp(lower, upper).view_as(x)


def _rows(value: float | Tensor, x: Tensor) -> Tensor:
    """A number or [N] tensor -> [N, 1] (or [1, 1]) in x's dtype, on x's device."""
    if isinstance(value, Tensor):
        return value.to(x.dtype).reshape(-1, 1)
    return torch.full((1, 1), value, dtype=x.dtype, device=x.device)


# 2. Fake
def _fake(x_adv: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x_adv, memory_format=torch.preserve_format)


def _fake_inplace(x_adv: Tensor, *_: object) -> None:
    return None


# 3. Autograd: none (csrc/autograd/pgd_step.cpp says so to torch). The step is the update rule of an
# optimiser; nothing differentiates it.


# 4. Backends
def register() -> None:
    """Attach the Python halves to the compiled op. Called once, when the extension has loaded."""
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
    finite, moves nothing);
    the l1 projection is that of Duchi et al. (2008). The clamp comes last; where x lies in
    [lower, upper] it cannot leave the ball. Not differentiable: runs without autograd.

    Args:
        x_adv: current images [N, ...], floating point.
        grad: gradient of what is climbed, same shape, dtype and device.
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
    op = "pgd_step"
    if not are_alike(x_adv, grad, x) or x_adv.dim() < 1:
        _complain(op, x_adv, grad, x)
    if norm not in NORMS:
        raise InputError(f"{op}: norm must be one of {', '.join(NORMS)}, got {norm!r}.")
    if not lower <= upper:
        raise InputError(f"{op}: lower must not exceed upper, got {lower} and {upper}.")
    step_number, step_rows = _radius(op, "step_size", step_size, x, validate)
    eps_number, eps_rows = _radius(op, "eps", eps, x, validate)
    if not _backend.is_native(x):
        with torch.no_grad():
            result = reference(x_adv, grad, x, step_size, eps, lower, upper, norm)
            return x_adv.copy_(result) if inplace else result
    settings = (step_number, eps_number, step_rows, eps_rows, lower, upper, NORMS.index(norm))
    ops = _backend.callable_ops(x_adv)
    if inplace:
        ops.pgd_step_(x_adv, grad, x, *settings)
        return x_adv
    return ops.pgd_step(x_adv, grad, x, *settings)  # type: ignore[no-any-return]


def _complain(op: str, x_adv: Tensor, grad: Tensor, x: Tensor) -> None:
    """Say what is wrong with tensors that do not fit."""
    if require_tensor(op, "x_adv", x_adv).dim() < 1:
        raise InputError(f"{op}: x_adv must have a batch dimension, got a scalar.")
    require_like(op, "x_adv", x_adv, "grad", require_tensor(op, "grad", grad))
    require_like(op, "x_adv", x_adv, "x", require_tensor(op, "x", x))


def _radius(
    op: str, name: str, value: float | Tensor, x: Tensor, validate: bool
) -> tuple[float, Tensor | None]:
    """Checked, and as the kernels take it: a number, or a tensor that overrides it. No tensor is
    made for a number."""
    if isinstance(value, Tensor):
        _check_rows(op, name, value, x, validate)
        return 0.0, value
    # A float is what loops pass; a bool is an int to Python and no radius.
    is_number = type(value) is float or (
        isinstance(value, (float, int)) and not isinstance(value, bool)
    )
    if not (is_number and 0 <= value < math.inf):
        raise InputError(f"{op}: {name} must be a finite number >= 0, got {value!r}.")
    return float(value), None


def _check_rows(op: str, name: str, value: Tensor, x: Tensor, validate: bool) -> None:
    require_tensor(op, name, value)
    if value.numel() != 1 and tuple(value.shape) != (x.shape[0],):
        raise InputError(
            f"{op}: {name} must be a number or a tensor of shape [N] = [{x.shape[0]}], "
            f"got {shape_of(value)}."
        )
    require_same_kind(op, name, value, "x", x)
    if (
        validate
        and not torch.compiler.is_compiling()
        and not bool(((value >= 0) & value.isfinite()).all())
    ):
        raise InputError(f"{op}: {name} must hold finite numbers >= 0, got a negative or NaN one.")
