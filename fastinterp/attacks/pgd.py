"""Projected gradient descent on an image, as an attack object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_one_of
from ..ops.pgd_step import Norm
from .ascent import Keep
from .ball_attack import BallAttack
from .objectives import Objective
from .step_size import fine_step, require_moving, warn_if_short
from .threats import BALLS, require_radius


@hint_keywords
class PGD(BallAttack):
    """Projected gradient descent (Madry et al., 2018).

    `attack = PGD(model, eps=8 / 255, step_size=2 / 255, steps=10)`, then `x_adv = attack(x, y)`.
    The arguments have torchattacks' order, but its `alpha` is `step_size` here, and the attack
    starts at x unless `random_start=True`. The defaults are the paper's protocol: start at x, climb
    the cross-entropy, return the last iterate.

    Args:
        model: any classifier of images in [lower, upper], a module (attacked in eval mode) or a
            function from images to logits; normalisation belongs inside it.
        eps: radius of the ball around x, in pixel units: a number, or a tensor [N].
        step_size: of one step, a number or a tensor [N]. linf: per pixel. l2, l1: the length of
            the step. None: 2.5 eps / steps, which is 2/255 for the other defaults.
        steps: number of steps.
        norm: "linf", "l2" or "l1".
        random_start: start at a point drawn uniformly from the ball instead of at x.
        targeted: y are the classes to reach, not the true ones.
        restarts: number of attempts. Each image gets the first attempt that fools the model, else
            the one with the highest objective. More than one needs `random_start`.
        objective: what to climb; by default cross-entropy (targeted: its negative). A
            discrepancy or divergence from x is flat at x and needs `random_start`.
        keep: which iterate an attempt returns: "last", "first_fooled" or "best"; see `ascend`.
        generator: for reproducible random starts.
        lower, upper: the range of valid pixels.

    Raises:
        InputError: a setting is out of its range.

    Warns:
        UserWarning: the steps together are shorter than the ball's radius.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        step_size: float | Tensor | None = None,
        steps: int = 10,
        norm: Norm = "linf",
        random_start: bool = False,
        targeted: bool = False,
        restarts: int = 1,
        objective: Objective | None = None,
        keep: Keep = "last",
        generator: torch.Generator | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_one_of("PGD: norm", norm, BALLS)
        steps = require_count("PGD: steps", steps, 0)
        if step_size is None:
            require_radius("eps", eps)
            step_size = fine_step(eps, steps)
        super().__init__(
            model,
            eps,
            step_size,
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
        require_moving("PGD", eps, step_size, steps)
        warn_if_short("PGD", eps, step_size, steps)
