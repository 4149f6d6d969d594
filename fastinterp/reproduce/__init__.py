"""The paper's tables and figures, measured again; tables stand beside what the paper prints."""

from __future__ import annotations

from .._utils.require import require_known_name
from .figures import FIGURES, PaperFigure, figure_files, reproduce_figure
from .networks import Network, find_network
from .paper import Block, PaperTable, list_tables, load_table
from .report import order_kept, paper_and_ours, summary, two_class_withstands, write_markdown
from .results import measured_otherwise
from .tables import reproduce_table
from .train import train_missing

__all__ = [
    "FIGURES",
    "Block",
    "Network",
    "PaperFigure",
    "PaperTable",
    "figure_files",
    "find_network",
    "list_entries",
    "list_tables",
    "load_entry",
    "load_table",
    "measured_otherwise",
    "order_kept",
    "paper_and_ours",
    "reproduce_figure",
    "reproduce_table",
    "summary",
    "train_missing",
    "two_class_withstands",
    "write_markdown",
]


def list_entries() -> list[str]:
    """The names of the tables and figures that can be reproduced."""
    return [*list_tables(), *FIGURES]


def load_entry(name: str) -> PaperTable | PaperFigure:
    """A table or figure by its name.

    Raises:
        InputError: there is none of this name.
    """
    require_known_name("table or figure", name, list_entries())
    return FIGURES[name] if name in FIGURES else load_table(name)
