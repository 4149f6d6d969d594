"""Image classifiers whose explanations hold under attack.

`models` and `data` load networks and images, `interpreters` explain them, `attacks` seek what
breaks them, the trainers defend, `evaluation` measures, and `ops` are the fused kernels below.
"""

from . import attacks, data, evaluation, interpreters, models, ops, training
from ._utils.errors import InputError
from ._version import __version__
from .attacks import PGD
from .interpreters import CAM
from .ops import backend, build_info
from .training import (
    AdvTrainer,
    IGNormSumTrainer,
    IGNormTrainer,
    IntAdvTrainer,
    IntLoss,
    IntOneClassTrainer,
    IntTrainer,
    NormalTrainer,
    TRADESTrainer,
)

__all__ = [
    "CAM",
    "PGD",
    "AdvTrainer",
    "IGNormSumTrainer",
    "IGNormTrainer",
    "InputError",
    "IntAdvTrainer",
    "IntLoss",
    "IntOneClassTrainer",
    "IntTrainer",
    "NormalTrainer",
    "TRADESTrainer",
    "__version__",
    "attacks",
    "backend",
    "build_info",
    "data",
    "evaluation",
    "interpreters",
    "models",
    "ops",
    "training",
]
