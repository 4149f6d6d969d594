"""Training: a method (inner objective, outer loss), one step, one loop, recipes of the paper."""

from .int_loss import IntLoss
from .methods import METHODS, Method, method
from .recipe import Recipe, list_recipes, load_recipe, run_recipe
from .schedule import LinearEps
from .timing import StepTime, time_recipes
from .trainer import StepResult, Trainer
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
    "METHODS",
    "AdvTrainer",
    "IGNormSumTrainer",
    "IGNormTrainer",
    "IntAdvTrainer",
    "IntLoss",
    "IntOneClassTrainer",
    "IntTrainer",
    "LinearEps",
    "Method",
    "NormalTrainer",
    "Recipe",
    "StepResult",
    "StepTime",
    "TRADESTrainer",
    "Trainer",
    "list_recipes",
    "load_recipe",
    "method",
    "run_recipe",
    "time_recipes",
]
