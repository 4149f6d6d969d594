"""Accuracy under attack, explanations, tables and pictures."""

from ..attacks.step_size import default_step_size
from .aai_scores import AAIRow, aai_sweep
from .accuracy import Row, sweep
from .audit import audit
from .audit_checks import Check, audit_table
from .corruptions import CorruptionRow, corruption_sweep
from .explanations import Explanations, explain
from .isa_scores import ISARow, isa_row
from .protocols import ISA_SEED, PAPER_SEED, PROTOCOLS, paper_selection
from .tables import accuracy_table, markdown_table, text_table, write_rows
from .topk import topk_intersection

__all__ = [
    "ISA_SEED",
    "PAPER_SEED",
    "PROTOCOLS",
    "AAIRow",
    "Check",
    "CorruptionRow",
    "Explanations",
    "ISARow",
    "Row",
    "aai_sweep",
    "accuracy_table",
    "audit",
    "audit_table",
    "corruption_sweep",
    "default_step_size",
    "explain",
    "isa_row",
    "markdown_table",
    "paper_selection",
    "sweep",
    "text_table",
    "topk_intersection",
    "write_rows",
]
