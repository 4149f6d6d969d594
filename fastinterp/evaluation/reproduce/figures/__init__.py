"""The paper's figures, measured and drawn again. Each is a module with a `FIGURE`."""

from __future__ import annotations

from .fig3 import FIGURE as fig3
from .figa1 import FIGURE as figa1
from .figure import Figure, IterationTime, Measured, Setting
from .run import Files, figure_files, reproduce_figure

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (fig3, figa1)}

__all__ = [
    "FIGURES",
    "Figure",
    "Files",
    "IterationTime",
    "Measured",
    "Setting",
    "figure_files",
    "reproduce_figure",
]
