"""The expectations of an audit: what attacks do to a network whose gradients tell the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from .tables import format_accuracy, format_eps


@dataclass(frozen=True)
class Check:
    """One expectation, and what was measured.

    Attributes:
        name: of the check.
        passed: None where it was skipped.
        figures: what was measured by what gave it; accuracies, but for the gradient's share.
        sentence: what it means.
    """

    name: str
    passed: bool | None
    figures: dict[str, float]
    sentence: str

    @property
    def word(self) -> str:
        return {True: "passed", False: "FAILED", None: "skipped"}[self.passed]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def rises(accuracies: Sequence[float], tolerance: float) -> bool:
    """Whether an accuracy is above the lowest before it; rises too small alone add up."""
    lowest = math.inf
    for before, after in pairwise(accuracies):
        lowest = min(lowest, before)
        if after > lowest + tolerance + 1e-9:
            return True
    return False


def gradient(flat: float, tolerance: float) -> Check:
    passed = flat <= tolerance + 1e-9
    return Check(
        "gradient",
        passed,
        {"share of images without one": flat},
        "The cross-entropy has a gradient at the images."
        if passed
        else "At some images the gradient of the cross-entropy is zero at every pixel: "
        "attacks that follow it cannot move.",
    )


def _counted(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def more_steps(by_steps: dict[int, float], tolerance: float) -> Check:
    passed = not rises(list(by_steps.values()), tolerance)
    return Check(
        "more steps",
        passed,
        {_counted(count): found for count, found in by_steps.items()},
        "More steps never leave a higher accuracy."
        if passed
        else "More steps left a higher accuracy: the gradient leads the attack astray.",
    )


def larger_eps(by_eps: dict[float, float], tolerance: float) -> Check:
    passed = not rises(list(by_eps.values()), tolerance)
    return Check(
        "larger eps",
        passed,
        {f"eps {format_eps(radius)}": found for radius, found in by_eps.items()},
        "A larger ball never leaves a higher accuracy."
        if passed
        else "A larger ball left a higher accuracy: the attack misses what the smaller one holds.",
    )


def one_step(by_steps: dict[int, float], tolerance: float) -> Check:
    most = max(by_steps)
    passed = by_steps[most] <= by_steps[1] + tolerance + 1e-9
    return Check(
        "one step",
        passed,
        {_counted(1): by_steps[1], _counted(most): by_steps[most]},
        "One long step is no stronger than many short ones."
        if passed
        else "One long step is stronger than many short ones, which lose their way near x.",
    )


def unbounded(accuracy: float, whole: float) -> Check:
    passed = accuracy == 0
    return Check(
        "unbounded",
        passed,
        {f"eps {format_eps(whole)}": accuracy},
        "An attack that may change everything fools the network on every image."
        if passed
        else "An attack that may change everything does not fool the network on every image: "
        "gradients mislead it, or it needs more steps.",
    )


def transfer(white: float, black: float | None, tolerance: float) -> Check:
    if black is None:
        return Check(
            "transfer", None, {}, "No other network was given to make adversarial images with."
        )
    passed = white <= black + tolerance + 1e-9
    return Check(
        "transfer",
        passed,
        {"own gradients": white, "another network's": black},
        "Images made against another network are no stronger than its own."
        if passed
        else "Images made against another network are stronger than its own: "
        "its gradients hide what they find.",
    )


def audit_table(checks: Sequence[Check]) -> tuple[list[str], list[list[str]]]:
    """Checks -> header and body: name, result, accuracies."""
    return ["check", "result", "measured"], [
        [check.name, check.word, _shown(check.figures)] for check in checks
    ]


def _shown(figures: Mapping[str, float]) -> str:
    if not figures:
        return "-"
    return ", ".join(f"{name}: {format_accuracy(value)}" for name, value in figures.items())
