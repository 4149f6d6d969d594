"""The paper's figures, measured and drawn again. Each is a module with a `FIGURE`."""

from __future__ import annotations

from . import fig1, fig2, fig3, figa1
from .figure import PaperFigure, Setting
from .run import Files, figure_files, reproduce_figure

FIGURES: dict[str, PaperFigure] = {
    module.FIGURE.name: module.FIGURE for module in (fig1, fig2, fig3, figa1)
}

__all__ = ["FIGURES", "Files", "PaperFigure", "Setting", "figure_files", "reproduce_figure"]
