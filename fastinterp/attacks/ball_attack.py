"""What PGD and APGD share: their settings, the call, and several attempts at one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_count, require_number
from .ascent import FIXED_STEPS, Keep, ascend, is_fooled, require_keep
from .checks import as_module, require_batch, require_generator
from .climber import Climber
from .modes import eval_mode, own_autograd
from .objectives import CrossEntropy, Objective, require_climbable
from .outputs import Outputs
from .seeded_start import SeededStart, another_seed, require_seeds
from .threats import BALLS, Threat
from .watch import Watch, require_finite_logits


class BallAttack(Described):
    """Gradient steps in a ball of pixels; `PGD` and `APGD` say what the settings mean.

    Raises:
        InputError: a setting is out of its range.
    """

    climber: Climber = FIXED_STEPS

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor,
        step_size: float | Tensor,
        steps: int,
        norm: str,
        random_start: bool,
        targeted: bool,
        restarts: int,
        objective: Objective | None,
        keep: Keep,
        generator: torch.Generator | None,
        lower: float,
        upper: float,
    ) -> None:
        who = type(self).__name__
        restarts = require_count(f"{who}: restarts", restarts)
        require_number(f"{who}: lower", lower)
        require_number(f"{who}: upper", upper)
        if restarts > 1 and not random_start:
            raise InputError(
                f"{who}: every restart from x finds the same image; pass random_start=True or "
                "restarts=1."
            )
        require_keep(keep)
        objective = CrossEntropy(targeted) if objective is None else objective
        require_climbable(objective, random_start)
        require_generator(who, generator)
        self.model = as_module(who, model)
        self.threat: Threat = BALLS[norm](eps, step_size, lower, upper)
        self.steps = steps
        self.random_start = random_start
        self.targeted = targeted
        self.restarts = restarts
        self.objective = objective
        self.keep: Keep = keep
        self.generator = generator
        self.lower, self.upper = lower, upper

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, ...] in [lower, upper], on the model's device.
            y: true classes [N]; targets if `targeted`.
            generator: used instead of the one given at construction.
            seeds: one for each image, in 0..2^32 - 1, used instead of a generator: an image's
                random starts then depend on its own seed and not on its batch.

        Returns:
            x_adv, like x, detached.

        Raises:
            InputError: shapes, dtypes, devices, pixels, labels or seeds do not fit; the gradient by
                the images is not finite.
        """
        who = type(self).__name__
        require_generator(who, generator)
        generator = generator or self.generator
        y = require_batch(who, self.model, x, y, self.targeted, self.lower, self.upper)
        own = None if seeds is None else require_seeds(who, seeds, len(x))
        watch = Watch()
        watched = watch.over(self.threat)

        def seeded(number: int) -> Threat:
            if own is None:
                return watched
            return SeededStart(watched, [another_seed(seed, number) for seed in own])

        x_adv = self._attempt(seeded(0), self.objective, x, y, generator)
        watch.require_finite(who, x_adv)
        if self.restarts == 1 or len(x) == 0:
            return x_adv
        value, fooled = self._judge(self.objective, x, x_adv, y)
        for number in range(1, self.restarts):
            left = (~fooled).nonzero().squeeze(1)
            if len(left) == 0:
                break
            threat, objective = seeded(number).rows(left), self.objective.rows(left)
            again = self._attempt(threat, objective, x[left], y[left], generator)
            watch.require_finite(who, again)
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
            climber=self.climber,
        )

    def _judge(
        self, objective: Objective, x: Tensor, x_adv: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x' [N, ...] -> the objective's value [N] and whether the model is fooled [N]."""
        with eval_mode(self.model), own_autograd(x.device.type), torch.no_grad():
            value = objective.prepare(Outputs(self.model, x).detach(), y)
            adv = Outputs(self.model, x_adv)
            require_finite_logits(type(self).__name__, adv.logits)
            return value(adv), is_fooled(adv.logits, y, self.targeted)
