"""Objects that print as what they were made of."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from torch import Generator, Tensor, nn


class Described:
    """Prints as its public attributes: `PGD(model=Small, steps=10, ...)`. Functions, random
    generators and what was left out say nothing and are not shown."""

    def __repr__(self) -> str:
        return describe(self, vars(self))


def describe(of: object, settings: dict[str, Any]) -> str:
    """`Name(setting=value, ...)` in one line; networks by their class, tensors by their shape."""
    shown = (
        f"{name}={_short(value)}"
        for name, value in settings.items()
        if not name.startswith("_")
        and value is not None
        and not isinstance(value, FunctionType | Generator)
    )
    return f"{type(of).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
