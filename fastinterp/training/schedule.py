"""How eps and the learning rate change over the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

from .._utils.errors import InputError
from .._utils.require import require_count

EpsSchedule = Callable[[int], float]


@dataclass(frozen=True)
class LinearEps:
    """eps by step: 0 up to step `start`, linear to `eps` at step `end`, then constant.

    Steps count from 0. Growing slowly is what keeps robust training stable (appendix B).

    Raises:
        InputError: the steps are out of order.
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
        if step <= self.start:
            return 0.0
        if step >= self.end:
            return self.eps
        return self.eps * (step - self.start) / (self.end - self.start)


def decay(step: int, milestones: Sequence[int]) -> float:
    """The factor on the learning rate at a step: 0.1 for each milestone that lies before it."""
    return 0.1 ** sum(step > milestone for milestone in milestones)


def make_schedule(eps: float, schedule: EpsSchedule | tuple[int, int] | None) -> EpsSchedule | None:
    """A schedule as users give it: (start, end) in steps, a function of the step, or None.

    Raises:
        InputError: none of the three.
    """
    if schedule is None or callable(schedule):
        return schedule
    if (
        not isinstance(schedule, (tuple, list))
        or len(schedule) != 2
        or not all(isinstance(step, Integral) for step in schedule)
    ):
        raise InputError(
            "eps_schedule must be (start, end) in steps, a function of the step, or None, "
            f"got {schedule!r}."
        )
    return LinearEps(eps, *map(int, schedule))


def require_milestones(milestones: Sequence[int]) -> tuple[int, ...]:
    """Return the milestones as a tuple if they are whole numbers.

    Raises:
        InputError: they are not.
    """
    if isinstance(milestones, str) or not isinstance(milestones, Iterable):
        raise InputError(f"lr_milestones must be a list of steps, got {milestones!r}.")
    return tuple(require_count("lr_milestones: a step", step, 0) for step in milestones)
