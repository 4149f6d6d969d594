"""How long a training step of each recipe takes, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch

from ..attacks.modes import in_mode
from .batches import make_batches
from .distributed import share_of, share_out
from .graphs import WARM_UP
from .recipe import Data, Recipe, make_trainer, training_data


class StepTime(NamedTuple):
    """The time of one optimisation step of a recipe.

    Attributes:
        seconds: the median over the timed steps.
        iterations: number of steps in an epoch.
        timed: number of timed steps.
    """

    seconds: float
    iterations: int
    timed: int


def time_recipes(
    recipes: Sequence[Recipe],
    data_dir: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    rounds: int = 5,
    warm_up: int = 1,
    progress: bool = True,
) -> list[StepTime]:
    """Time a few training steps of each recipe at its full eps.

    The recipes take turns, one step each, so that a change in the machine's speed affects all of
    them. Networks have their initial weights; the work of a step does not depend on the weights.

    Args:
        recipes: the recipes to time.
        data_dir: the folder that holds their data sets.
        device: where to train.
        rounds: number of timed steps of each.
        warm_up: number of steps of each before these; on a GPU at least so many that later steps
            are CUDA graphs.
        progress: show a bar if standard error is a terminal.

    Raises:
        InputError: a data set is missing.
    """
    from tqdm import tqdm

    device = torch.device(device)
    if device.type == "cuda":
        warm_up = max(warm_up, WARM_UP + 1)
    loaded: dict[tuple[object, ...], Data] = {}
    steppers = []
    for recipe in recipes:
        key = (recipe.dataset, recipe.val_images, recipe.train_images, recipe.allow_partial)
        if key not in loaded:
            loaded[key], _ = training_data(recipe, data_dir)
        steppers.append(_stepper(recipe, loaded[key], device))
    seconds: list[list[float]] = [[] for _ in recipes]
    total = len(recipes) * (warm_up + rounds)
    with tqdm(total=total, unit="step", desc="timing", disable=None if progress else True) as bar:
        for turn in range(warm_up + rounds):
            for (step, _), found in zip(steppers, seconds, strict=True):
                began = _now(device)
                step()
                if turn >= warm_up:
                    found.append(_now(device) - began)
                bar.update()
    return [
        StepTime(statistics.median(found), iterations, rounds)
        for found, (_, iterations) in zip(seconds, steppers, strict=True)
    ]


def _stepper(recipe: Recipe, train: Data, device: torch.device) -> tuple[Callable[[], None], int]:
    """A function that does the recipe's next step at its full eps, and the steps of an epoch."""
    trainer = make_trainer(replace(recipe, eps_schedule=()), train, device)
    batches = make_batches(train, recipe.batch_size, recipe.seed, train.num_classes, device)
    batches = share_out(batches, recipe.seed)
    share = share_of(batches)
    few = cycle(list(islice(batches.epoch(0, 0), 4)))

    def step() -> None:
        with in_mode(trainer.model, training=True):
            trainer.training_step(*next(few), share)

    return step, batches.steps


def _now(device: torch.device) -> float:
    """The time after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
