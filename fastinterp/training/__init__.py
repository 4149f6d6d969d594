"""Training: methods (inner objective and outer loss), trainers, `IntLoss`, and recipes."""

from .callbacks import Callback, EarlyStopping, TensorBoard
from .config import FAST, TrainConfig
from .families import list_recipes
from .int_loss import IntLoss
from .methods import METHODS, Method, MethodRow, method
from .recipe import Recipe, load_recipe, run_recipe
from .result import StepResult
from .schedule import LinearEps
from .timing import StepTime, time_recipes
from .trainer import Trainer
from .trainers import (
    AdvTrainer,
    IGNormSumTrainer,
    IGNormTrainer,
    IntAdvTrainer,
    IntOneClassTrainer,
    IntTrainer,
    NormalTrainer,
    TRADESTrainer,
)

__all__ = [
    "FAST",
    "METHODS",
    "AdvTrainer",
    "Callback",
    "EarlyStopping",
    "IGNormSumTrainer",
    "IGNormTrainer",
    "IntAdvTrainer",
    "IntLoss",
    "IntOneClassTrainer",
    "IntTrainer",
    "LinearEps",
    "Method",
    "MethodRow",
    "NormalTrainer",
    "Recipe",
    "StepResult",
    "StepTime",
    "TRADESTrainer",
    "TensorBoard",
    "TrainConfig",
    "Trainer",
    "list_recipes",
    "load_recipe",
    "method",
    "run_recipe",
    "time_recipes",
]
