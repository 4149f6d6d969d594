"""Attacks: a threat (where x' may go), an objective (what increases), and one ascent loop."""

from .aai import AAI
from .apgd import APGD
from .ascent import ascend
from .autoattack import AutoAttack
from .bisection import Bisection
from .climber import Climb, Climber, FallingSteps, FixedSteps, HalvingSteps, SparseSteps
from .fab import FAB
from .ig_norm import IGNorm
from .isa import ISA, ISAResult
from .map_objectives import Capped, MakeInterpreter, MapDiscrepancy, MapDistance, TopK
from .minimal import MinimalPGD, MinimalResult
from .objectives import (
    DLR,
    KL,
    CrossEntropy,
    Discrepancy,
    DLRTowards,
    Margin,
    MarginTowards,
    Objective,
)
from .outputs import Outputs
from .pgd import PGD
from .rank import Rank, soft_tau
from .seeded_start import SeededStart
from .square import Square
from .threats import Ball, L1Ball, L2Ball, LinfBall, SoftSignBall, Threat
from .unforeseen import JPEG, Elastic, Fog, Gabor, Snow

__all__ = [
    "AAI",
    "APGD",
    "DLR",
    "FAB",
    "ISA",
    "JPEG",
    "KL",
    "PGD",
    "AutoAttack",
    "Ball",
    "Bisection",
    "Capped",
    "Climb",
    "Climber",
    "CrossEntropy",
    "DLRTowards",
    "Discrepancy",
    "Elastic",
    "FallingSteps",
    "FixedSteps",
    "Fog",
    "Gabor",
    "HalvingSteps",
    "IGNorm",
    "ISAResult",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "MakeInterpreter",
    "MapDiscrepancy",
    "MapDistance",
    "Margin",
    "MarginTowards",
    "MinimalPGD",
    "MinimalResult",
    "Objective",
    "Outputs",
    "Rank",
    "SeededStart",
    "Snow",
    "SoftSignBall",
    "SparseSteps",
    "Square",
    "Threat",
    "TopK",
    "ascend",
    "soft_tau",
]
