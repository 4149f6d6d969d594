"""How eps and the learning rate change over the steps of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._utils.errors import InputError

EpsSchedule = Callable[[int], float]


@dataclass(frozen=True)
class LinearEps:
    """eps by step: 0 up to step `start`, then linear to `eps` at step `end`, then constant.

    Steps count from 0. A slow increase keeps robust training stable (appendix B).

    Raises:
        InputError: the steps are negative or out of order.
    """

    eps: float
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise InputError(
                f"eps_schedule must be two steps 0 <= start <= end, got {self.start}, {self.end}."
            )

    def __call__(self, step: int) -> float:
        return linear_eps(self.eps, self.start, self.end, step)


def linear_eps(eps: float, start: int, end: int, step: int) -> float:
    if step <= start:
        return 0.0
    return eps if step >= end else eps * (step - start) / (end - start)


def warn_if_eps_stays_low(eps: float, end: int, last: int, reached: float) -> None:
    """Warn where a run ends before its radius has risen to eps.

    Args:
        eps: the full radius.
        end: the step from which on it applies.
        last: the run's last step, counted from 0, and `reached`, the radius there.
    """
    if end > last + 1:
        warnings.warn(
            f"This run ends at step {last + 1}, and eps_schedule raises the radius up to step "
            f"{end}: it reaches {reached:.3g} of eps = {eps:g}. Train for more epochs or pass an "
            "earlier eps_schedule.",
            stacklevel=5,
        )


def decay(step: int, milestones: Sequence[int]) -> float:
    """The factor on the learning rate at a step: 0.1 for each milestone before it."""
    return 0.1 ** sum(step > milestone for milestone in milestones)
