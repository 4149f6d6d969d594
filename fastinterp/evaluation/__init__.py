"""Accuracy under attack, explanations, tables and pictures."""

from ..attacks.step_size import default_step_size
from .aai_scores import AAIRow, aai_sweep
from .accuracy import AccuracyRow, sweep
from .corruptions import CorruptionRow, corruption_sweep
from .explanations import explain
from .isa_scores import ISARow, isa_row
from .obfuscation import Check, audit, audit_table
from .overlays import overlay_maps
from .pictures import Explanations, Picture, draw_explanations
from .protocols import ISA_SEED, PAPER_SEED, PROTOCOLS, paper_selection
from .reliability import UnreliableFigures
from .robustbench import THREAT_MODELS, ThreatModel, robustbench_entry
from .stability import (
    Stability,
    average_sensitivity,
    local_lipschitz,
    max_sensitivity,
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
    stability,
)
from .tables import (
    accuracy_table,
    footnotes,
    markdown_table,
    text_table,
    write_rows,
)
from .topk import topk_intersection
from .worst_maps import aai_best_sweep

__all__ = [
    "ISA_SEED",
    "PAPER_SEED",
    "PROTOCOLS",
    "THREAT_MODELS",
    "AAIRow",
    "AccuracyRow",
    "Check",
    "CorruptionRow",
    "Explanations",
    "ISARow",
    "Picture",
    "Stability",
    "ThreatModel",
    "UnreliableFigures",
    "aai_best_sweep",
    "aai_sweep",
    "accuracy_table",
    "audit",
    "audit_table",
    "average_sensitivity",
    "corruption_sweep",
    "default_step_size",
    "draw_explanations",
    "explain",
    "footnotes",
    "isa_row",
    "local_lipschitz",
    "markdown_table",
    "max_sensitivity",
    "overlay_maps",
    "paper_selection",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "robustbench_entry",
    "stability",
    "sweep",
    "text_table",
    "topk_intersection",
    "write_rows",
]
