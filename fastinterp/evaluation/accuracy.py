"""Accuracy under attack, over sizes of the perturbation and numbers of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_one_of, require_positive
from ..attacks.checks import Function, as_module, require_pixel_eps
from ..attacks.ensemble import FOOLED_BEFORE, WITHSTANDS, Attack, attack_in_turn
from ..attacks.expectation import MeanOfPasses
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size, falls_short, warn_of_short_cells
from ..attacks.threats import BALLS
from ..models.gap import device_of
from ..ops.pgd_step import Norm
from .ensembles import Budget
from .measuring import (
    Measured,
    Source,
    accuracy_of,
    all_batches,
    misclassified,
    progress_bar,
    require_cells,
)
from .protocols import PROTOCOLS, Protocol
from .reliability import EXAMINED, Signs, look_for_signs, random_numbers
from .saved import Entry, saved_verdicts


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

    `by_attack`, where a protocol has several attacks: the accuracy after each of them, in turn.
    """

    short_of_eps: bool
    potentially_unreliable: str
    by_attack: dict[str, float]


def sweep(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Source,
    labels: Tensor | None = None,
    *,
    eps: Sequence[float] | float,
    steps: Sequence[int] | int | None = None,
    protocol: str = "paper",
    norm: Norm = "linf",
    step_size: float | None = None,
    batch_size: int = 100,
    seed: int = 0,
    samples: int | None = None,
    state: str | Path | None = None,
    progress: bool = True,
) -> list[AccuracyRow]:
    """Accuracy under attack for each number of steps and each eps (Tables 3, 4 and A1 to A3).

    An image's verdict does not depend on the other images of its batch. The model runs in eval mode
    and is left as it was.

    Args:
        model: images in [0, 1] -> logits: any module, or a function, which gets images on the
            device where they are.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch. Or
            a DataLoader, `data.stream` or another iterable of pairs (images, labels), which is read
            once, and of which no more than a batch is held.
        labels: true classes [N], for a tensor of images.
        eps: radii (or one) of the ball around x, in pixel units. 0 gives the clean accuracy.
        steps: numbers of gradient steps of an attack; None takes 200 for "paper" and 100 for
            others.
        protocol: "paper", "best" or "autoattack"; see `fastinterp.evaluation.PROTOCOLS`.
        norm: "linf", "l2" or "l1".
        step_size: of one step of the protocol "paper"; None takes `default_step_size`.
        batch_size: images attacked at a time; it changes memory and speed, not the result. A
            DataLoader determines its own.
        seed: of random starts, which the paper's protocol lacks, and of a network with `samples`.
        samples: for a random network: each pass is the mean of the logits of so many (expectation
            over transformation, Athalye et al., 2018). An image's verdict then depends on the
            random numbers that are drawn.
        state: a file that keeps the verdicts of each attack that is done, so that the same call
            goes on there after an interruption. It is removed at the end.
        progress: show a bar where standard error is a terminal.

    Returns:
        One row for each number of steps and each eps, in the order given.

    Raises:
        InputError: images, labels or a setting do not fit; the network is random or changes its
            images, and the protocol is not "paper"; a step size or number of steps is given that
            the protocol chooses itself.

    Warns:
        UserWarning: in some cells all attacks fall short of the boundary of the ball; their rows
            are marked, see `AccuracyRow`.
        UnreliableFigures: the network hides its gradients, is random, or the like.
    """
    model = as_module("sweep", model)
    if state is not None and isinstance(model, Function):
        raise InputError(
            "sweep: state needs a network, whose weights tell which one was measured, got a "
            "function; leave state out."
        )
    measured = Measured("sweep", model, images, labels, batch_size)
    judge = PROTOCOLS[require_one_of("protocol", protocol, PROTOCOLS)]
    require_one_of("norm", norm, BALLS)
    require_choices(judge, steps, step_size)
    cells = require_cells(eps, judge.steps if steps is None else steps)
    require_count("seed", seed, 0)
    for radius, _ in cells:
        require_pixel_eps("sweep", norm, radius)
    budgets = {
        (radius, count): Budget(
            norm, radius, count, step_size or default_step_size(norm, radius, count), seed
        )
        for radius, count in sorted(set(cells))  # by rising eps: images fooled in one stay fooled
    }
    if judge.paper:
        warn_of_short_cells("sweep", [(e, b.step_size, s) for (e, s), b in budgets.items()])
    network: nn.Module = model if samples is None else MeanOfPasses(model, samples)
    some = measured.first(EXAMINED)
    assert measured.classes is not None  # known by now
    classes = measured.classes
    signs = look_for_signs(model, *some, norm, max(radius for radius, _ in cells), batch_size)
    signs = signs.once_averaged() if samples is not None else signs
    if not judge.paper:
        signs.require_repeatable("sweep")
    signs.warn("sweep")
    found: dict[tuple[float, int], list[Tensor]] = {cell: [] for cell in budgets}
    total = None if measured.count is None else len(budgets) * measured.count
    key = (protocol, norm, seed, samples, batch_size, step_size)
    with (
        saved_verdicts(state, network, some[0], key) as saved,
        eval_mode(network),
        nullcontext() if samples is None else random_numbers(device_of(model, some[0]), seed),
        progress_bar(total, "img", progress) as bar,
    ):
        for rows, (x, y) in measured:
            verdicts: dict[tuple[float, int], Tensor] = {}
            for cell, budget in budgets.items():
                bar.set_description(f"eps {budget.eps:.4g}, {budget.steps} steps")
                attacks = judge.attacks(network, budget, classes)
                entry = saved.entry(f"{cell} {rows.start}")
                known = [by for smaller, by in verdicts.items() if _holds(cell, smaller)]
                verdicts[cell] = _verdicts(network, attacks, judge, budget, x, y, known, entry)
                bar.update(len(x))
            for cell, by in verdicts.items():
                found[cell].append(by.cpu())
    names = list(judge.attacks(network, next(iter(budgets.values())), classes))
    by_cell = {cell: torch.cat(all_batches(parts)) for cell, parts in found.items()}
    return [_row(budgets[cell], by_cell[cell], names, judge, signs) for cell in cells]


def require_choices(
    judge: Protocol, steps: Sequence[int] | int | None, step_size: float | None
) -> None:
    """Raise if a protocol is given settings that it chooses itself."""
    if step_size is not None:
        require_positive("step_size", step_size)
        if not judge.paper:
            raise InputError(
                f"The protocol {judge.name} chooses its own step sizes; leave step_size out."
            )
    fixed = ([judge.steps], (judge.steps,), judge.steps, None)
    if not judge.any_steps and steps not in fixed:
        raise InputError(
            f"The protocol {judge.name} always takes {judge.steps} steps, got {steps}; leave steps "
            'out, or choose the protocol "best".'
        )


def _holds(cell: tuple[float, int], smaller: tuple[float, int]) -> bool:
    return smaller[0] <= cell[0] and smaller[1] <= cell[1]


def _verdicts(
    network: nn.Module,
    attacks: Mapping[str, Attack],
    judge: Protocol,
    budget: Budget,
    x: Tensor,
    y: Tensor,
    known: Sequence[Tensor],
    entry: Entry,
) -> Tensor:
    """Which attack fools each image, int64 [N]; see `attack_in_turn`.

    `known` are the verdicts of easier cells, `entry` is what an earlier run saved.
    """
    by, done = entry.read(torch.full_like(y, WITHSTANDS))
    if done == 0 and (not judge.paper or budget.eps == 0 or budget.steps == 0):
        by[misclassified(network, x, y)] = FOOLED_BEFORE
        for other in known if not judge.paper else ():
            by[other != WITHSTANDS] = FOOLED_BEFORE
    if budget.eps == 0 or budget.steps == 0:
        return by
    attack_in_turn(
        network,
        attacks,
        x,
        y,
        by,
        everyone=judge.paper,
        after=lambda number: entry.write(by, number),
        first=done,
    )
    return by


def _row(
    budget: Budget, by: Tensor, names: Sequence[str], judge: Protocol, signs: Signs
) -> AccuracyRow:
    row = accuracy_row(
        budget.eps,
        budget.steps,
        by != WITHSTANDS,
        budget.step_size if judge.paper else None,
    )
    if len(names) > 1 and budget.eps > 0:
        after = [(by == WITHSTANDS) | (by > number) for number in range(len(names))]
        row["by_attack"] = {
            name: accuracy_of(~holds) for name, holds in zip(names, after, strict=True)
        }
    if reasons := signs.reasons(attacked=budget.eps > 0):
        row["potentially_unreliable"] = "; ".join(reasons)
    return row


def accuracy_row(eps: float, steps: int, fooled: Tensor, step_size: float | None) -> AccuracyRow:
    """The row of a cell: fooled bool [N], and the steps' size; None where attacks choose it."""
    row = AccuracyRow(eps=eps, steps=steps, accuracy=accuracy_of(fooled), n=len(fooled))
    if step_size is not None and falls_short(eps, step_size, steps):
        row["short_of_eps"] = True
    return row
