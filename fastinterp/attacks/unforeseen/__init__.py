"""Attacks that no training against pixel balls foresees (Kang et al., 2019)."""

from .attack import UnforeseenAttack
from .elastic import Elastic, ElasticThreat
from .fog import Fog, FogThreat
from .frank_wolfe import CappedL1Ball
from .gabor import Gabor, GaborThreat
from .jpeg import JPEG, JPEGThreat
from .snow import Snow, SnowThreat

__all__ = [
    "JPEG",
    "CappedL1Ball",
    "Elastic",
    "ElasticThreat",
    "Fog",
    "FogThreat",
    "Gabor",
    "GaborThreat",
    "JPEGThreat",
    "Snow",
    "SnowThreat",
    "UnforeseenAttack",
]
