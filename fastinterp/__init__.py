"""Image classifiers whose explanations hold under attack.

`models` and `data` load networks and images, `interpreters` explain them, `attacks` seek what
breaks them, the trainers defend, `evaluation` measures, and `ops` are the fused kernels below.
"""

from . import attacks, data, discrepancy, evaluation, interpreters, models, ops, training
from ._version import __version__
from .attacks import PGD
from .errors import InputError
from .interpreters import CAM
from .models.image_layer import use_image_gradient as _use_image_gradient
from .ops import backend, build_info
from .ops.image_gradient import image_gradient as _image_gradient
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

_use_image_gradient(_image_gradient)

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
    "discrepancy",
    "evaluation",
    "interpreters",
    "models",
    "ops",
    "training",
]
