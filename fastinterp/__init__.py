"""Image classifiers whose explanations stay stable under attack.

`models` and `data` load networks and images, `interpreters` compute class maps, `attacks` search
perturbed images that change predictions or maps, `training` makes networks robust, `evaluation`
measures them, and `ops` has the fused operations that all of these use.
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
