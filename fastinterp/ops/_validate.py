"""Checks shared by the public ops: they read attributes, never values, so no GPU is waited for.

Loops call ops thousands of times: an op asks one question about all its tensors, and where the
answer is no, `mismatch` says what was expected and what was given.
"""

from __future__ import annotations

from torch import Tensor

from .._utils.errors import InputError


def are_alike(first: object, *others: object) -> bool:
    """Whether these are floating-point tensors of one dtype on one device."""
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return False
    dtype, device = first.dtype, first.device
    for other in others:
        if not isinstance(other, Tensor) or other.dtype is not dtype or other.device != device:
            return False
    return True


def mismatch(op: str, expected: str, **given: object) -> InputError:
    """The error for arguments that do not fit: "op: expected ..., got name dtype shape device"."""
    got = ", ".join(f"{name} {_describe(value)}" for name, value in given.items())
    return InputError(f"{op}: expected {expected}; got {got}.")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return "None" if value is None else f"of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
