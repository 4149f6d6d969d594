"""The paper's tables, measured again and set beside what the paper prints."""

from .measure import reproduce
from .paper import Block, Table, list_tables, load_table
from .report import paper_and_ours, summary, two_class_withstands, write_markdown

__all__ = [
    "Block",
    "Table",
    "list_tables",
    "load_table",
    "paper_and_ours",
    "reproduce",
    "summary",
    "two_class_withstands",
    "write_markdown",
]
