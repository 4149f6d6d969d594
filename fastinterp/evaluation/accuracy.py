"""Accuracy under attack, over sizes of the perturbation and numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypedDict

import torch
from torch import Tensor, nn

from .._utils.require import require_count, require_one_of, require_positive
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size
from ..attacks.threats import BALLS
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .measuring import accuracy_of, in_batches, progress_bar, require_cells, require_measurable
from .protocols import PROTOCOLS
from .reliability import MeanOfPasses, look_for_signs, random_numbers
from .tries import Budget, attack_in_turn


class _Cell(TypedDict):
    eps: float
    steps: int
    accuracy: float
    n: int


class AccuracyRow(_Cell, total=False):
    """Accuracy on n images under attacks of radius eps and that many steps.

    `potentially_unreliable` is there where the network shows signs that the figure may be wrong,
    and says which.
    """

    potentially_unreliable: str


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
    samples: int | None = None,
    progress: bool = True,
) -> list[AccuracyRow]:
    """Accuracy under attack for each number of steps and each eps (Tables 3, 4 and A1 to A3).

    An image's verdict does not depend on the other images of its batch. The model runs in eval mode
    and is left as it was.

    Args:
        model: images in [0, 1] -> logits.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch.
        labels: true classes [N].
        eps: radii (or one) of the ball around x, in pixel units. 0 gives the clean accuracy.
        steps: numbers of attack steps.
        protocol: "paper" or "best"; see `fastinterp.evaluation.PROTOCOLS`.
        norm: "linf", "l2" or "l1".
        step_size: of one step; None takes `default_step_size`.
        batch_size: images attacked at a time; it changes memory and speed, not the result.
        seed: of random starts, which the paper's protocol lacks, and of a network with `samples`.
        samples: for a random network: each pass is the mean of the logits of so many (expectation
            over transformation, Athalye et al., 2018). An image's verdict then depends on the
            random numbers that are drawn.
        progress: show a bar where standard error is a terminal.

    Returns:
        One row for each number of steps and each eps, in the order given.

    Raises:
        InputError: images, labels or a setting do not fit; the network is random or changes its
            images, and the protocol is not "paper".

    Warns:
        UnreliableFigures: the network hides its gradients, is random, or the like.
    """
    labels = require_measurable("sweep", model, images, labels, batch_size)
    judge = PROTOCOLS[require_one_of("protocol", protocol, PROTOCOLS)]
    require_one_of("norm", norm, BALLS)
    cells = require_cells(eps, steps)
    size = None if step_size is None else require_positive("step_size", step_size)
    require_count("seed", seed, 0)
    in_order = sorted(set(cells))  # by rising eps, for `carry`
    network: nn.Module = model if samples is None else MeanOfPasses(model, samples)
    signs = look_for_signs(model, images, labels, norm, in_order[-1][0], batch_size)
    signs = signs.once_averaged() if samples is not None else signs
    if judge.name != "paper":
        signs.require_repeatable("sweep")
    signs.warn("sweep")
    fooled: dict[tuple[float, int], Tensor] = {}
    with (
        eval_mode(network),
        nullcontext() if samples is None else random_numbers(model.device, seed),
        progress_bar(len(in_order) * len(images), "img", progress) as bar,
    ):
        for radius, count in in_order:
            bar.set_description(f"eps {radius:.4g}, {count} steps")
            known = torch.zeros(len(images), dtype=torch.bool)
            if judge.carry:
                for (smaller, fewer), verdicts in fooled.items():
                    if smaller <= radius and fewer <= count:
                        known |= verdicts
            step = default_step_size(norm, radius, count) if size is None else size
            budget = Budget(norm, radius, count, step, seed)
            tries = judge.tries(budget)
            for rows, (x, y, before) in in_batches(batch_size, model.device, images, labels, known):
                found = attack_in_turn(
                    network, tries, budget, x, y, fooled=before, first=rows.start
                )
                known[rows] = found.cpu()
                bar.update(len(x))
            fooled[radius, count] = known
    rows_found = []
    for radius, count in cells:
        figure = accuracy_of(fooled[radius, count])
        row = AccuracyRow(eps=radius, steps=count, accuracy=figure, n=len(images))
        if reasons := signs.reasons(attacked=radius > 0):
            row["potentially_unreliable"] = "; ".join(reasons)
        rows_found.append(row)
    return rows_found
