"""The paper's tables and figures, measured again; tables stand beside what the paper prints."""

from .catalogue import Entry, duration, list_entries, load_entry
from .figures import (
    FIGURES,
    Figure,
    figure_files,
    figure_measured_otherwise,
    reproduce_figure,
)
from .measure import measured_otherwise, needed, reproduce
from .networks import Network, find_network
from .paper import Block, Table, list_tables, load_table
from .report import order_kept, paper_and_ours, summary, two_class_withstands, write_markdown

__all__ = [
    "FIGURES",
    "Block",
    "Entry",
    "Figure",
    "Network",
    "Table",
    "duration",
    "figure_files",
    "figure_measured_otherwise",
    "find_network",
    "list_entries",
    "list_tables",
    "load_entry",
    "load_table",
    "measured_otherwise",
    "needed",
    "order_kept",
    "paper_and_ours",
    "reproduce",
    "reproduce_figure",
    "summary",
    "two_class_withstands",
    "write_markdown",
]
