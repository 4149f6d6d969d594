"""Accuracy under attack, over sizes of the perturbation and numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypedDict

import torch
from torch import Tensor, nn

from .._utils.require import require_count, require_one_of, require_positive
from ..attacks.checks import require_pixel_eps
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size, falls_short, warn_of_short_cells
from ..attacks.threats import BALLS
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .measuring import Measured, Source, accuracy_of, all_batches, progress_bar, require_cells
from .protocols import PROTOCOLS
from .reliability import EXAMINED, MeanOfPasses, look_for_signs, random_numbers
from .tries import Budget, attack_in_turn


class AccuracyFigures(TypedDict):
    """Accuracy on n images under attacks of radius eps and that many steps."""

    eps: float
    steps: int
    accuracy: float
    n: int


class AccuracyRow(AccuracyFigures, total=False):
    """`AccuracyFigures`, and marks where they say little.

    `short_of_eps` is True where steps x step_size is smaller than eps: the attack cannot reach the
    boundary of the ball. `potentially_unreliable` says which signs the network shows that the
    figure may be wrong. Both are missing elsewhere.
    """

    short_of_eps: bool
    potentially_unreliable: str


def sweep(
    model: GapClassifier,
    images: Source,
    labels: Tensor | None = None,
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
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch. Or
            a DataLoader, `data.stream` or another iterable of pairs (images, labels), which is read
            once, and of which no more than a batch is held.
        labels: true classes [N], for a tensor of images.
        eps: radii (or one) of the ball around x, in pixel units. 0 gives the clean accuracy.
        steps: numbers of attack steps.
        protocol: "paper" or "best"; see `fastinterp.evaluation.PROTOCOLS`.
        norm: "linf", "l2" or "l1".
        step_size: of one step; None takes `default_step_size`.
        batch_size: images attacked at a time; it changes memory and speed, not the result. A
            DataLoader determines its own.
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
        UserWarning: in some cells all attacks fall short of the boundary of the ball; their rows
            are marked, see `AccuracyRow`.
        UnreliableFigures: the network hides its gradients, is random, or the like.
    """
    measured = Measured("sweep", model, images, labels, batch_size)
    judge = PROTOCOLS[require_one_of("protocol", protocol, PROTOCOLS)]
    require_one_of("norm", norm, BALLS)
    cells = require_cells(eps, steps)
    size = None if step_size is None else require_positive("step_size", step_size)
    require_count("seed", seed, 0)
    for radius, _ in cells:
        require_pixel_eps("sweep", norm, radius)
    budgets = {
        (radius, count): Budget(
            norm, radius, count, size or default_step_size(norm, radius, count), seed
        )
        for radius, count in sorted(set(cells))  # by rising eps, for `carry`
    }
    tries = {cell: judge.tries(budget) for cell, budget in budgets.items()}
    # The longest step of any attack: `best` also takes steps that reach the boundary.
    reach = {cell: max(one.step_size for one in tries[cell]) for cell in budgets}
    warn_of_short_cells("sweep", [(eps, reach[eps, count], count) for eps, count in budgets])
    network: nn.Module = model if samples is None else MeanOfPasses(model, samples)
    largest = max(radius for radius, _ in cells)
    signs = look_for_signs(model, *measured.first(EXAMINED), norm, largest, batch_size)
    signs = signs.once_averaged() if samples is not None else signs
    if judge.name != "paper":
        signs.require_repeatable("sweep")
    signs.warn("sweep")
    fooled: dict[tuple[float, int], list[Tensor]] = {cell: [] for cell in budgets}
    total = None if measured.count is None else len(budgets) * measured.count
    with (
        eval_mode(network),
        nullcontext() if samples is None else random_numbers(model.device, seed),
        progress_bar(total, "img", progress) as bar,
    ):
        for rows, (x, y) in measured:
            verdicts: dict[tuple[float, int], Tensor] = {}
            for (radius, count), budget in budgets.items():
                bar.set_description(f"eps {radius:.4g}, {count} steps")
                known = torch.zeros(len(x), dtype=torch.bool, device=x.device)
                if judge.carry:
                    for (smaller, fewer), verdict in verdicts.items():
                        if smaller <= radius and fewer <= count:
                            known |= verdict
                verdicts[radius, count] = attack_in_turn(
                    network, tries[radius, count], budget, x, y, fooled=known, first=rows.start
                )
                bar.update(len(x))
            for cell, verdict in verdicts.items():
                fooled[cell].append(verdict.cpu())
    found = {cell: torch.cat(all_batches(parts)) for cell, parts in fooled.items()}
    rows_found = []
    for radius, count in cells:
        row = accuracy_row(radius, count, found[radius, count], reach[radius, count])
        if reasons := signs.reasons(attacked=radius > 0):
            row["potentially_unreliable"] = "; ".join(reasons)
        rows_found.append(row)
    return rows_found


def accuracy_row(eps: float, steps: int, fooled: Tensor, step_size: float) -> AccuracyRow:
    """The row of a cell: fooled bool [N], and the longest step that its attacks took."""
    row = AccuracyRow(eps=eps, steps=steps, accuracy=accuracy_of(fooled), n=len(fooled))
    if falls_short(eps, step_size, steps):
        row["short_of_eps"] = True
    return row
