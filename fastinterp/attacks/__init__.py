"""Attacks: a threat (where x' may go), an objective (what increases), and one ascent loop."""

from .aai import AAI
from .ascent import ascend
from .bisection import Bisection
from .fab import FAB
from .ig_norm import IGNorm
from .isa import ISA, ISAResult
from .map_objectives import Capped, MakeInterpreter, MapDiscrepancy, MapDistance, TopK
from .minimal import MinimalPGD, MinimalResult
from .objectives import KL, CrossEntropy, Discrepancy, Margin, Objective
from .outputs import Outputs
from .pgd import PGD
from .square import Square
from .threats import Ball, L1Ball, L2Ball, LinfBall, SoftSignBall, Threat
from .unforeseen import JPEG, Elastic, Fog, Gabor, Snow

__all__ = [
    "AAI",
    "FAB",
    "ISA",
    "JPEG",
    "KL",
    "PGD",
    "Ball",
    "Bisection",
    "Capped",
    "CrossEntropy",
    "Discrepancy",
    "Elastic",
    "Fog",
    "Gabor",
    "IGNorm",
    "ISAResult",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "MakeInterpreter",
    "MapDiscrepancy",
    "MapDistance",
    "Margin",
    "MinimalPGD",
    "MinimalResult",
    "Objective",
    "Outputs",
    "Snow",
    "SoftSignBall",
    "Square",
    "Threat",
    "TopK",
    "ascend",
]
