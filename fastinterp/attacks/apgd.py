"""Auto-PGD: projected gradient descent that chooses its own step sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_one_of
from ..ops.pgd_step import Norm
from .ascent import Keep, ascend
from .ball_attack import BallAttack
from .climber import Climber, HalvingSteps, SparseSteps
from .objectives import Objective
from .threats import BALLS, Threat, movable

RADII = (3.0, 2.0)  # of the first searches in l1, each with 30% of the steps
WIDER = 10.0  # a random start in l1 comes from a ball so much larger, and is projected


@hint_keywords
class APGD(BallAttack):
    """Auto-PGD (Croce and Hein, 2020), in l1 with sparse steps (Croce and Hein, 2021).

    `attack = APGD(model, eps=8 / 255, steps=100)`, then `x_adv = attack(x, y)`. There is no step
    size to choose: `HalvingSteps` and, in l1, `SparseSteps` choose it for each image. In l1 the
    first 30% of the steps search a ball of three times the radius and the next 30% one of twice the
    radius; each search starts from the best point of the one before, projected to its own ball.

    Args:
        model: any classifier of images in [lower, upper], as for `PGD`.
        eps: radius of the ball around x, in pixel units: a number, or a tensor [N].
        steps: number of steps, in l1 of all three searches together.
        norm: "linf", "l2" or "l1".
        random_start: start at a point drawn uniformly from the ball instead of at x. In l1 it is
            drawn from a ball ten times as large as that of the first search and then projected,
            which leaves most pixels as they are; steps from there fool more images.
        targeted: y are the classes to reach, not the true ones.
        restarts: number of attempts, as for `PGD`.
        objective: what to climb; by default cross-entropy (targeted: its negative).
        keep: which iterate an attempt returns: "last", "first_fooled" or "best"; see `ascend`.
        generator: for reproducible random starts.
        lower, upper: the range of valid pixels.

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

    def _attempt(
        self,
        threat: Threat,
        objective: Objective,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        start, steps = None, self.steps
        ball = movable(threat)
        if ball.norm == "l1":
            start = ball.scaled(WIDER * RADII[0]).init(x, self.random_start, generator)
            for factor in RADII:
                taken = min(-(-3 * self.steps // 10), steps)
                start = ascend(
                    self.model,
                    ball.scaled(factor),
                    objective,
                    x,
                    y,
                    taken,
                    keep="best",
                    climber=self.climber,
                    start=ball.scaled(factor).project(x, start),
                )
                steps -= taken
            start = ball.project(x, start)
        return ascend(
            self.model,
            threat,
            objective,
            x,
            y,
            steps,
            random_start=self.random_start,
            generator=generator,
            keep=self.keep,
            targeted=self.targeted,
            climber=self.climber,
            start=start,
        )
