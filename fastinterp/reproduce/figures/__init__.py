"""The paper's figures, measured and drawn again. Each is a module with a `FIGURE`."""

from __future__ import annotations

from . import fig1, fig2, fig3, figa1
from .figure import Figure, Measured, Setting
from .run import Files, figure_files, figure_measured_otherwise, reproduce_figure

FIGURES: dict[str, Figure] = {
    module.FIGURE.name: module.FIGURE for module in (fig1, fig2, fig3, figa1)
}

__all__ = [
    "FIGURES",
    "Figure",
    "Files",
    "Measured",
    "Setting",
    "figure_files",
    "figure_measured_otherwise",
    "reproduce_figure",
]
