"""The paper's figures, measured and drawn again. Each is a module with a `FIGURE`."""

from __future__ import annotations

from .figure import Figure, IterationTime, Measured, Setting

_MODULES: tuple[Figure, ...] = ()
FIGURES: dict[str, Figure] = {figure.name: figure for figure in _MODULES}

__all__ = ["FIGURES", "Figure", "IterationTime", "Measured", "Setting"]
