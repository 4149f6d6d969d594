"""How eps and the learning rate change over the steps of a run."""

from __future__ import annotations

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


def decay(step: int, milestones: Sequence[int]) -> float:
    """The factor on the learning rate at a step: 0.1 for each milestone before it."""
    return 0.1 ** sum(step > milestone for milestone in milestones)
