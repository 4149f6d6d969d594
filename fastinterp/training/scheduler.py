"""How the learning rate changes over a run: torch's schedulers, or a shape by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .._utils.errors import InputError

MakeScheduler = Callable[[Optimizer], LRScheduler]
Every = Literal["step", "epoch"]

# The part of the run that is done, in [0, 1] -> the factor on the learning rate.
SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "triangle": lambda done: 1 - abs(2 * done - 1),  # "cyclic" in Wong et al. (2020)
}


def make_scheduler(
    scheduler: MakeScheduler | str | None, optimizer: Optimizer
) -> LRScheduler | None:
    """The scheduler that a function makes; None without one or for a shape by name.

    Raises:
        InputError: the function makes no scheduler of this optimizer.
    """
    if scheduler is None or isinstance(scheduler, str):
        return None
    made = scheduler(optimizer)
    if not isinstance(made, LRScheduler) or made.optimizer is not optimizer:
        raise InputError(
            "scheduler must be a function that makes one of torch's schedulers of the optimizer "
            "that it is given, as in lambda optimizer: CosineAnnealingLR(optimizer, 100), "
            f"got one that made {made!r}."
        )
    return made


def advance(scheduler: LRScheduler, loss: float | None) -> None:
    """Take one step. `loss` is for `ReduceLROnPlateau`, which can follow epochs only."""
    # A step of the optimizer that a CUDA graph replays is none that torch sees.
    scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
    if isinstance(scheduler, ReduceLROnPlateau):
        if loss is None:
            raise InputError('ReduceLROnPlateau follows epochs; give scheduler_every="epoch".')
        scheduler.step(loss)
    else:
        scheduler.step()


def shape_factor(name: str, step: int, total: int | None) -> float:
    """The factor on the learning rate at a step of a run of so many."""
    if total is None:
        raise InputError(
            f"scheduler={name!r} needs the number of steps, which fit knows; call fit, or give one "
            "of torch's schedulers."
        )
    return SHAPES[name](min(step / max(total, 1), 1.0))


def as_json(state: Any) -> Any:
    """A scheduler's state as JSON; numbers keep every bit."""
    if isinstance(state, dict):
        pairs = [[as_json(key), as_json(value)] for key, value in state.items()]
        return {"counter" if isinstance(state, Counter) else "dict": pairs}
    if isinstance(state, list | tuple):
        return [as_json(value) for value in state]
    return state.item() if hasattr(state, "item") else state


def from_json(saved: Any) -> Any:
    """What `as_json` was given."""
    if isinstance(saved, dict):
        ((kind, pairs),) = saved.items()
        found = {from_json(key): from_json(value) for key, value in pairs}
        return Counter(found) if kind == "counter" else found
    return [from_json(value) for value in saved] if isinstance(saved, list) else saved
