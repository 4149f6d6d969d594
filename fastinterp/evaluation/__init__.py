"""Accuracy under attack, explanations, tables and pictures."""

from .accuracy import Row, sweep
from .audit import Check, audit, audit_table
from .explanations import Explanations, explain
from .protocols import ISA_SEED, PAPER_SEED, PROTOCOLS, default_step_size, paper_selection
from .tables import accuracy_table, markdown_table, text_table, write_rows
from .topk import topk_intersection

__all__ = [
    "ISA_SEED",
    "PAPER_SEED",
    "PROTOCOLS",
    "Check",
    "Explanations",
    "Row",
    "accuracy_table",
    "audit",
    "audit_table",
    "default_step_size",
    "explain",
    "markdown_table",
    "paper_selection",
    "sweep",
    "text_table",
    "topk_intersection",
    "write_rows",
]
