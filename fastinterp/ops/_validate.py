"""Checks shared by the public ops. Each failure is one sentence: wrong, expected, what to do."""

from __future__ import annotations

from torch import Tensor

from .._utils.errors import InputError


def shape_of(tensor: Tensor) -> str:
    return "[" + ", ".join(str(size) for size in tensor.shape) + "]"


def require_tensor(op: str, name: str, value: object, dims: int | None = None) -> Tensor:
    """Return `value` if it is a floating-point tensor with `dims` dimensions, else raise."""
    if not isinstance(value, Tensor):
        raise InputError(f"{op}: {name} must be a tensor, got {type(value).__name__}.")
    if not value.is_floating_point():
        raise InputError(
            f"{op}: {name} must be floating point, got {value.dtype}; convert it with .float()."
        )
    if dims is not None and value.dim() != dims:
        raise InputError(f"{op}: {name} must have {dims} dimensions, got shape {shape_of(value)}.")
    return value


def are_alike(a: object, b: object, c: object) -> bool:
    """Whether three values are floating-point tensors of one shape, dtype and device.

    The quick question of a loop; where the answer is no, the functions below say why.
    """
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and isinstance(c, Tensor)
        and a.shape == b.shape == c.shape
        and a.dtype is b.dtype is c.dtype
        and a.device == b.device == c.device
        and a.is_floating_point()
    )


def require_like(op: str, first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise unless tensors a and b have one shape, dtype and device."""
    if a.shape != b.shape:
        raise InputError(
            f"{op}: {first} and {second} must have the same shape, "
            f"got {shape_of(a)} and {shape_of(b)}."
        )
    require_same_kind(op, first, a, second, b)


def require_same_kind(op: str, first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise unless tensors a and b have one dtype and device."""
    if a.dtype != b.dtype:
        raise InputError(
            f"{op}: {first} and {second} must have the same dtype, got {a.dtype} and {b.dtype}."
        )
    if a.device != b.device:
        raise InputError(
            f"{op}: {first} and {second} must be on the same device, got {a.device} and {b.device}."
        )


def require_features_and_weight(op: str, features: Tensor, weight: Tensor) -> None:
    """Raise unless features [N, K, h, w] and weight [C, K] belong together."""
    require_tensor(op, "features", features, dims=4)
    require_tensor(op, "weight", weight, dims=2)
    if features.shape[1] != weight.shape[1]:
        raise InputError(
            f"{op}: features [N, K, h, w] and weight [C, K] must share K, "
            f"got {shape_of(features)} and {shape_of(weight)}."
        )
    if min(features.shape[1:]) == 0 or weight.shape[0] == 0:
        raise InputError(
            f"{op}: only the batch may be empty, "
            f"got features {shape_of(features)} and weight {shape_of(weight)}."
        )
    require_same_kind(op, "features", features, "weight", weight)
