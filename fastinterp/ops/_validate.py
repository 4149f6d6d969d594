"""Checks shared by the public ops: they read attributes, never values, so no GPU is waited for.

Loops call ops thousands of times: an op asks one question about all its tensors, and where the
answer is no, `mismatch` says what was expected and what was given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._utils.errors import InputError


def are_alike(first: object, *others: object) -> bool:
    """Whether these are ordinary floating-point tensors of one dtype on one device."""
    if not isinstance(first, Tensor) or not first.is_floating_point() or is_unusual(first):
        return False
    dtype, device = first.dtype, first.device
    for other in others:
        if (
            not isinstance(other, Tensor)
            or other.dtype is not dtype
            or other.device != device
            or other.layout is not torch.strided
            or other.is_nested
        ):
            return False
    return True


def is_unusual(tensor: Tensor) -> bool:
    """Whether it is sparse, nested or without numbers; a kernel would read what is not there.

    Compilers trace with fake tensors, which name the device that they stand for.
    """
    return (
        tensor.layout is not torch.strided
        or tensor.is_nested
        or (type(tensor) is Tensor and tensor.is_meta)
    )


def require_readable(op: str, name: str, values: Tensor) -> None:
    """Raise where vmap hides the values that are to be checked."""
    if torch._C._functorch.is_batchedtensor(values):
        raise InputError(
            f"{op}: {name} cannot be checked while vmap maps over them; check them before and "
            "pass validate=False."
        )


def mismatch(op: str, expected: str, **given: object) -> InputError:
    """The error for arguments that do not fit: "op: expected ..., got name dtype shape device"."""
    got = ", ".join(f"{name} {_describe(value)}" for name, value in given.items())
    dense = ""
    if any(isinstance(value, Tensor) and is_unusual(value) for value in given.values()):
        dense = ", all of them dense and with numbers"
    return InputError(f"{op}: expected {expected}{dense}; got {got}.")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return "None" if value is None else f"of type {type(value).__name__}"
    kind = str(value.dtype).removeprefix("torch.")
    if value.is_nested:
        return f"{kind}, nested"
    layout = "" if value.layout is torch.strided else f", {value.layout}".replace("torch.", "")
    return f"{kind} {list(value.shape)} on {value.device}{layout}"
