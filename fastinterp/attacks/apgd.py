"""Auto-PGD: projected gradient descent that chooses its own step sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_one_of, require_positive
from ..ops.pgd_step import Norm
from .ascent import Keep, ascend
from .ball_attack import BallAttack
from .climber import Climber, HalvingSteps, SparseSteps
from .objectives import Objective
from .threats import BALLS, Threat, movable

RADII = (3.0, 2.0)  # of the first searches in l1, over eps
WIDER = 30.0  # the radius, over eps, of the ball that random starts in l1 come from
EARLIER, LAST = 3, 4  # shares of the steps that each earlier search and the last one take


@hint_keywords
class APGD(BallAttack):
    """Auto-PGD (Croce and Hein, 2020), in l1 with sparse steps (Croce and Hein, 2021).

    `attack = APGD(model, eps=8 / 255, steps=100)`, then `x_adv = attack(x, y)`. There is no step
    size to choose: `HalvingSteps` and, in l1, `SparseSteps` choose it for each image.

    With `radii`, larger balls are searched first, and each search starts from the best point of the
    one before, projected to its own ball. In l1 this is part of the attack: (3, 2) are the paper's
    radii. In l2 `radii=(10, 6, 3, 1.5)` finds far more on MNIST (docs/measured.md).

    Args:
        model: any classifier of images in [lower, upper], as for `PGD`.
        eps: radius of the ball around x, in pixel units: a number, or a tensor [N].
        steps: number of steps of all searches together. Where there are several, the last one
            takes four steps for three of each other one.
        norm: "linf", "l2" or "l1".
        random_start: start at a point drawn uniformly from the first ball searched instead of at x.
            In l1 it is drawn from a ball of 30 eps and then projected, which leaves most pixels as
            they are; steps from there fool more images.
        targeted: y are the classes to reach, not the true ones.
        restarts: number of attempts, as for `PGD`.
        objective: what to climb; by default cross-entropy (targeted: its negative).
        keep: which iterate an attempt returns: "last", "first_fooled" or "best"; see `ascend`.
        generator: for reproducible random starts.
        lower, upper: the range of valid pixels.
        radii: of the balls that are searched first, over eps, each above 1 and below the one
            before; by default (3, 2) in l1, none in linf and l2.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        steps: int = 100,
        norm: Norm = "linf",
        random_start: bool = True,
        targeted: bool = False,
        restarts: int = 1,
        objective: Objective | None = None,
        keep: Keep = "first_fooled",
        generator: torch.Generator | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
        radii: Sequence[float] | None = None,
    ) -> None:
        require_one_of("APGD: norm", norm, BALLS)
        steps = require_count("APGD: steps", steps, 0)
        super().__init__(
            model,
            eps,
            eps,
            steps,
            norm,
            random_start,
            targeted,
            restarts,
            objective,
            keep,
            generator,
            lower,
            upper,
        )
        self.climber: Climber = SparseSteps() if norm == "l1" else HalvingSteps()
        self.radii = _require_radii((RADII if norm == "l1" else ()) if radii is None else radii)

    def _attempt(
        self,
        threat: Threat,
        objective: Objective,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        def search(ball: Threat, start: Tensor | None, steps: int, keep: Keep) -> Tensor:
            return ascend(
                self.model,
                ball,
                objective,
                x,
                y,
                steps,
                random_start=self.random_start,
                generator=generator,
                keep=keep,
                targeted=self.targeted,
                climber=self.climber,
                start=start,
            )

        left, start = self.steps, None
        if self.radii:
            ball = movable(threat)
            widest = WIDER if ball.norm == "l1" else self.radii[0]
            start = ball.scaled(widest).init(x, self.random_start, generator)
            shares = EARLIER * len(self.radii) + LAST
            each = -(-EARLIER * self.steps // shares)  # rounded up
            for factor in self.radii:
                larger, taken = ball.scaled(factor), min(each, left)
                start = search(larger, larger.project(x, start), taken, "best")
                left -= taken
            start = ball.project(x, start)
        return search(threat, start, left, self.keep)


def _require_radii(radii: Sequence[float]) -> tuple[float, ...]:
    found = tuple(require_positive("APGD: radii", radius) for radius in radii)
    falls = all(before > after for before, after in itertools.pairwise((*found, 1.0)))
    if not falls:
        raise InputError(f"APGD: radii must fall and lie above 1, got {found}.")
    return found
