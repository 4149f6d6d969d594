"""Accuracy under attack, over sizes of the perturbation and numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypedDict

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_count, require_counts, require_number, require_numbers
from ..attacks.checks import require_images, require_labels, require_range
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size, fine_step
from ..attacks.threats import BALLS
from ..models.gap import GapClassifier, require_fit, require_gap
from ..ops.pgd_step import Norm
from .bar import progress_bar
from .protocols import PROTOCOLS, Protocol
from .tries import attack_in_turn, predict


class Row(TypedDict):
    """Accuracy on n images, none of them moved by more than eps, after so many steps."""

    eps: float
    steps: int
    accuracy: float
    n: int


Cell = tuple[float, int]  # eps, steps


def sweep(
    model: GapClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: Sequence[float] | float,
    steps: Sequence[int] | int = (200,),
    protocol: str = "paper",
    norm: Norm = "linf",
    step_size: float | None = None,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> list[Row]:
    """Accuracy under attack for each number of steps and each eps (Tables 3, 4 and A1 to A3).

    Batches are for memory and speed alone: an image's verdict does not depend on its neighbours.
    The model runs in eval mode and is left as it was.

    Args:
        model: images in [0, 1] -> logits.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch.
        labels: true classes [N].
        eps: radii (or one) of the ball around x, in pixel units. 0 gives the clean accuracy.
        steps: numbers of attack steps.
        protocol: "paper" or "best"; see `fastinterp.evaluation.PROTOCOLS`.
        norm: "linf", "l2" or "l1".
        step_size: of one step; by default as `default_step_size` says.
        batch_size: images attacked at a time.
        seed: of the random starts; the paper's protocol has none.
        progress: show a bar where standard error is a terminal.

    Returns:
        One row for each number of steps and each eps, in the order asked for.

    Raises:
        InputError: images, labels or a setting do not fit.
    """
    labels = _check(model, images, labels, protocol, norm, batch_size)
    wanted = _cells(eps, steps)
    plan = _Plan(PROTOCOLS[protocol], norm, _step_size(step_size), seed)
    cells = sorted(set(wanted))  # by rising eps: who falls early need not be attacked again
    fooled: dict[Cell, Tensor] = {}
    with eval_mode(model), progress_bar(len(cells) * len(images), "img", progress) as bar:
        for cell in cells:
            bar.set_description(f"eps {cell[0]:.4g}, {cell[1]} steps")
            known = torch.zeros(len(images), dtype=torch.bool)
            if plan.protocol.carry:
                known = _carried(fooled, cell, known)
            for first in range(0, len(images), batch_size):
                rows = slice(first, first + batch_size)
                known[rows] = plan.attack(
                    model, images[rows], labels[rows], known[rows], first, cell
                )
                bar.update(len(labels[rows]))
            fooled[cell] = known
    return [
        Row(eps=cell[0], steps=cell[1], accuracy=_accuracy(fooled[cell]), n=len(images))
        for cell in wanted
    ]


@dataclass(frozen=True)
class _Plan:
    """What all cells of a sweep share."""

    protocol: Protocol
    norm: Norm
    step_size: float | None
    seed: int

    def attack(
        self, model: GapClassifier, x: Tensor, y: Tensor, known: Tensor, first: int, cell: Cell
    ) -> Tensor:
        """Which images of one batch are fooled in one cell, bool [B] on the CPU.

        Args:
            known: the images known to be fooled before, bool [B].
            first: the number of the first image in the whole set.
        """
        eps, steps = cell
        x, y, known = x.to(model.device), y.to(model.device), known.to(model.device)
        if eps == 0 or steps == 0:
            return ((predict(model, x) != y) | known).cpu()
        step_size = self.step_size
        if step_size is None:
            step_size = default_step_size(self.norm, eps, steps)
        return attack_in_turn(
            model,
            self.protocol.tries(step_size, fine_step(eps, steps)),
            lambda size: BALLS[self.norm](eps, size),
            x,
            y,
            steps,
            fooled=known,
            first=first,
            seed=self.seed,
        ).cpu()


def _carried(fooled: dict[Cell, Tensor], cell: Cell, known: Tensor) -> Tensor:
    """Images that fell within a smaller ball, or in fewer steps: the attacker has those too."""
    for (eps, steps), fell in fooled.items():
        if eps <= cell[0] and steps <= cell[1]:
            known = known | fell
    return known


def _accuracy(fooled: Tensor) -> float:
    return (len(fooled) - int(fooled.sum())) / len(fooled)


def _step_size(step_size: float | None) -> float | None:
    if step_size is None:
        return None
    size = require_number("step_size", step_size)
    if not (math.isfinite(size) and size > 0):
        raise InputError(f"step_size must be a finite number above 0, got {step_size!r}.")
    return size


def _cells(eps: Sequence[float] | float, steps: Sequence[int] | int) -> list[Cell]:
    """The cells of the table, in the order asked for."""
    radii, counts = require_numbers("eps", eps), require_counts("steps", steps, 0)
    if not radii or not counts:
        raise InputError("at least one eps and one number of steps are needed.")
    for radius in radii:
        if not (math.isfinite(radius) and radius >= 0):
            raise InputError(f"eps must be a finite number >= 0, got {radius!r}.")
    return [(radius, count) for count, radius in product(counts, radii)]


def _check(
    model: GapClassifier,
    images: Tensor,
    labels: Tensor,
    protocol: str,
    norm: str,
    batch_size: int,
) -> Tensor:
    """Raise unless everything fits; return the labels as int64."""
    require_gap("sweep", model)
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    if norm not in BALLS:
        raise InputError(f"norm must be one of {', '.join(BALLS)}, got {norm!r}.")
    require_count("batch_size", batch_size)
    require_images("sweep", images, 0.0, 1.0)
    labels = require_labels("sweep", "labels", labels, images)
    if len(images) == 0:
        raise InputError("sweep: there are no images to measure on.")
    require_range("sweep", "labels", labels, model.num_classes)
    require_fit("sweep", model, images[:1].to(model.device), autocast=False)
    return labels
