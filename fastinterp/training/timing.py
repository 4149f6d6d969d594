"""What a training iteration of each recipe takes, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import torch

from ..attacks.modes import in_mode
from ..data import ImageData
from .feed import make_feed
from .graphs import WARM_UP
from .recipe import Recipe, make_trainer, training_data


class StepTime(NamedTuple):
    """What one optimisation step of a recipe takes.

    Attributes:
        seconds: the median over the steps that were timed.
        iterations: steps in an epoch.
        timed: how many steps were timed.
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
    """Time a few training iterations of each recipe, as they are once eps is whole.

    The recipes take turns, a step each, so that a machine that grows slower or busier does so for
    all of them. Networks have their first weights; the work of a step does not depend on them.

    Args:
        recipes: what to time.
        data_dir: the folder that holds their data sets.
        device: where to train.
        rounds: steps of each that are timed.
        warm_up: steps of each before, which are not; on a GPU at least those after which steps are
            CUDA graphs.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: a data set is not there.
    """
    from tqdm import tqdm

    device = torch.device(device)
    if device.type == "cuda":
        warm_up = max(warm_up, WARM_UP + 1)
    loaded: dict[tuple[object, ...], ImageData] = {}
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


def _stepper(
    recipe: Recipe, train: ImageData, device: torch.device
) -> tuple[Callable[[], None], int]:
    """A function that does the recipe's next step at its whole eps, and the steps of an epoch."""
    trainer = make_trainer(replace(recipe, eps_schedule=()), train, device)
    feed = make_feed(train, recipe.batch_size, recipe.seed, train.num_classes, device)
    batches = cycle([batch for batch, _ in zip(feed.epoch(0, 0), range(4), strict=False)])

    def step() -> None:
        with in_mode(trainer.model, training=True):
            trainer.training_step(*next(batches))

    return step, feed.steps


def _now(device: torch.device) -> float:
    """The clock, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
