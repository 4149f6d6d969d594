"""Checks of input for every folder. A check returns the value or raises an InputError."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TypeVar

import torch
from torch import Tensor

from .errors import InputError

Value = TypeVar("Value")
INTEGERS = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip


def _shown(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _is_among(value: object, choices: Collection[object]) -> bool:
    try:
        return value in list(choices)
    except (RuntimeError, ValueError):  # an array of several numbers has no one truth
        return False


def require_one_of(name: str, value: Value, choices: Collection[Value]) -> Value:
    """`value`, if it is among a few choices."""
    if isinstance(value, Tensor) or not _is_among(value, choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"{name} must be one of {known}, got {_shown(value)}.")
    return value


def require_known_name(kind: str, name: str, known: Collection[str]) -> str:
    """`name`, if it is known; else the error suggests the nearest known name.

    Args:
        kind: what the name is of, such as "recipe".
    """
    if name in list(known):
        return name
    raise InputError(f"There is no {kind} {name!r}; {suggest(name, known)}")


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of an error on an unknown name: the nearest known name, or all of them."""
    known = list(known)
    near = get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known names are {', '.join(known)}."


def require_whole(name: str, value: object) -> int:
    """`value` as an int, if it is a whole number of any integer type."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, got {_shown(value)}.")
    return int(value)


def require_count(name: str, value: object, least: int = 1) -> int:
    """`value` as an int, if it is a whole number of at least `least`."""
    count = require_whole(name, value)
    if count < least:
        raise InputError(f"{name} must be at least {least}, got {count}.")
    return count


def require_number(name: str, value: object) -> float:
    """`value` as a float, if it is a number, which may be infinite or NaN."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{name} must be a number, got {_shown(value)}.")
    return float(value)


def require_nonnegative(name: str, value: object) -> float:
    """`value` as a float, if it is a finite number >= 0."""
    number = require_number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} must be a finite number >= 0, got {_shown(value)}.")
    return number


def require_positive(name: str, value: object) -> float:
    """`value` as a float, if it is a finite number > 0."""
    number = require_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a finite number > 0, got {_shown(value)}.")
    return number


def require_seed(name: str, value: object) -> int:
    """`value` as an int, if it is a whole number that torch takes as a seed."""
    seed = require_whole(name, value)
    if not -(2**63) <= seed < 2**64:
        raise InputError(f"{name} must lie in -2**63..2**64 - 1, got {_shown(value)}.")
    return seed


def number_in(text: str) -> float:
    """The number that a text holds, which may be a fraction such as 8/255.

    Raises:
        ValueError: it holds none, or one beyond the range of a float.
    """
    above, slash, below = text.partition("/")
    value = int(above) / int(below) if slash else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def require_numbers(name: str, values: object) -> list[float]:
    """`values` as a list, if they are numbers; one number is a list of one."""
    return [require_number(name, value) for value in _several(name, values)]


def require_counts(name: str, values: object, least: int = 1) -> list[int]:
    """`values` as a list, if they are whole numbers of at least `least`; one is a list of one."""
    return [require_count(name, value, least) for value in _several(name, values)]


def _several(name: str, values: object) -> Iterable[object]:
    if isinstance(values, Real):
        return [values]
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a number or a list of numbers, got {_shown(values)}.")
    return values


def require_floating(who: str, name: str, values: object) -> Tensor:
    """`values`, if they are a tensor of floating-point numbers."""
    if not isinstance(values, Tensor):
        kind, advice = type(values).__name__, "use torch.as_tensor"
    elif not values.is_floating_point():
        kind, advice = str(values.dtype), "divide 8-bit images by 255"
    else:
        return values
    raise InputError(f"{who}: {name} must be a floating-point tensor, got {kind}; {advice}.")


def require_integers(name: str, values: object) -> Tensor:
    """`values` as int64, if they are a tensor of integers; int64 is not copied."""
    expected = f"{name} must be an integer tensor such as int64"
    if not isinstance(values, Tensor):
        raise InputError(f"{expected}, got {type(values).__name__}; use torch.as_tensor.")
    if values.dtype not in INTEGERS:
        raise InputError(f"{expected}, got {values.dtype}.")
    return values.to(torch.int64)


def require_labels(who: str, name: str, y: object, x: Tensor) -> Tensor:
    """y [N] as int64, if it holds one integer for each image of x [N, ...], on x's device."""
    labels = require_integers(f"{who}: {name}", y)
    if labels.shape != x.shape[:1]:
        raise InputError(
            f"{who}: {name} must have shape [N] = [{len(x)}], got {list(labels.shape)}."
        )
    if labels.device != x.device:
        raise InputError(
            f"{who}: images and {name} must be on the same device, "
            f"got {x.device} and {labels.device}."
        )
    return labels


def require_range(who: str, name: str, y: Tensor, num_classes: int) -> None:
    """Raise unless every label lies in 0..num_classes-1. This waits for a GPU."""
    if y.numel() == 0:
        return
    low, high = map(int, y.aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{who}: {name} must lie in 0..{num_classes - 1} for {num_classes} classes, "
            f"got {low}..{high}."
        )


def is_readable(x: Tensor) -> bool:
    """Whether values can be read without waiting for a GPU, a compiler or a transform of torch."""
    plain = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and type(x) in (Tensor, torch.nn.Parameter) and not _is_transformed(x)


def _is_transformed(x: Tensor) -> bool:
    """Whether it is inside torch.func's vmap, grad or the like."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
