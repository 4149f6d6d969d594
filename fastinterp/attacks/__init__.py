"""Attacks: a threat (where x' may go), an objective (what is climbed), one ascent loop."""

from .ascent import ascend
from .ig_norm import IGNorm
from .objectives import KL, CrossEntropy, Discrepancy, Margin, Objective, Scored
from .outputs import Outputs
from .pgd import PGD
from .threats import Ball, L1Ball, L2Ball, LinfBall, Threat

__all__ = [
    "KL",
    "PGD",
    "Ball",
    "CrossEntropy",
    "Discrepancy",
    "IGNorm",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "Margin",
    "Objective",
    "Outputs",
    "Scored",
    "Threat",
    "ascend",
]
