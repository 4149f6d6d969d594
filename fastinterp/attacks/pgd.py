"""Projected gradient descent on an image, as an attack object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_number, require_one_of
from ..ops.pgd_step import Norm
from .ascent import Keep, ascend, is_fooled, require_keep
from .checks import as_module, require_batch, require_generator
from .modes import eval_mode, own_autograd
from .objectives import CrossEntropy, Objective, require_climbable
from .outputs import Outputs
from .step_size import fine_step, require_moving, warn_if_short
from .threats import BALLS, Threat, require_radius
from .watch import Watch, require_finite_logits


@hint_keywords
class PGD(Described):
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
        restarts = require_count("PGD: restarts", restarts)
        require_number("PGD: lower", lower)
        require_number("PGD: upper", upper)
        if restarts > 1 and not random_start:
            raise InputError(
                "PGD: every restart from x finds the same image; pass random_start=True or "
                "restarts=1."
            )
        require_keep(keep)
        objective = CrossEntropy(targeted) if objective is None else objective
        require_climbable(objective, random_start)
        require_generator("PGD", generator)
        self.model = as_module("PGD", model)
        if step_size is None:
            require_radius("eps", eps)
            step_size = fine_step(eps, steps)
        self.threat: Threat = BALLS[norm](eps, step_size, lower, upper)
        require_moving("PGD", eps, step_size, steps)
        warn_if_short("PGD", eps, step_size, steps)
        self.steps = steps
        self.random_start = random_start
        self.targeted = targeted
        self.restarts = restarts
        self.objective = objective
        self.keep: Keep = keep
        self.generator = generator
        self.lower, self.upper = lower, upper

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, ...] in [lower, upper], on the model's device.
            y: true classes [N]; targets if `targeted`.
            generator: used instead of the one given at construction.

        Returns:
            x_adv, like x, detached.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; the gradient by the
                images is not finite.
        """
        require_generator("PGD", generator)
        generator = generator or self.generator
        y = require_batch("PGD", self.model, x, y, self.targeted, self.lower, self.upper)
        watch = Watch()
        threats = watch.over(self.threat)
        x_adv = self._attempt(threats, self.objective, x, y, generator)
        watch.require_finite("PGD", x_adv)
        if self.restarts == 1 or len(x) == 0:
            return x_adv
        value, fooled = self._judge(self.objective, x, x_adv, y)
        for _ in range(1, self.restarts):
            left = (~fooled).nonzero().squeeze(1)
            if len(left) == 0:
                break
            threat, objective = threats.rows(left), self.objective.rows(left)
            again = self._attempt(threat, objective, x[left], y[left], generator)
            watch.require_finite("PGD", again)
            new_value, new_fooled = self._judge(objective, x[left], again, y[left])
            better = new_fooled | (new_value > value[left])
            chosen = left[better]
            x_adv[chosen], value[chosen] = again[better], new_value[better]
            fooled[chosen] = new_fooled[better]
        return x_adv

    def _attempt(
        self,
        threat: Threat,
        objective: Objective,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        return ascend(
            self.model,
            threat,
            objective,
            x,
            y,
            self.steps,
            random_start=self.random_start,
            generator=generator,
            keep=self.keep,
            targeted=self.targeted,
        )

    def _judge(
        self, objective: Objective, x: Tensor, x_adv: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x' [N, ...] -> the objective's value [N] and whether the model is fooled [N]."""
        with eval_mode(self.model), own_autograd(x.device.type), torch.no_grad():
            value = objective.prepare(Outputs(self.model, x).detach(), y)
            adv = Outputs(self.model, x_adv)
            require_finite_logits("PGD", adv.logits)
            return value(adv), is_fooled(adv.logits, y, self.targeted)
