"""A repr that shows the settings of an object."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from torch import Generator, Tensor, nn


class Described:
    """Gives an object the repr `PGD(model=Small, steps=10, ...)`, made from its public attributes.

    Functions, random generators and attributes that are None are left out.
    """

    def __repr__(self) -> str:
        return describe(self, vars(self))


def describe(of: object, settings: dict[str, Any]) -> str:
    """`Name(setting=value, ...)` in one line."""
    shown = (
        f"{name}={_short(value)}"
        for name, value in settings.items()
        if not (
            name.startswith("_") or value is None or isinstance(value, FunctionType | Generator)
        )
    )
    return f"{type(of).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
