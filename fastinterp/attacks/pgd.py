"""Projected gradient descent on an image, as an attack object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_count, require_number
from ..ops.pgd_step import Norm
from .ascent import Keep, ascend, is_fooled, require_keep
from .checks import as_module, require_batch, require_generator
from .modes import eval_mode, own_autograd
from .objectives import CrossEntropy, Objective, require_a_way_up
from .outputs import Outputs
from .step_size import fine_step, require_moving, warn_if_short
from .threats import BALLS, Threat, require_radius


class PGD(Described):
    """Projected gradient descent (Madry et al., 2018).

    `attack = PGD(model, eps=8 / 255, step_size=2 / 255, steps=10)`, then `x_adv = attack(x, y)`, as
    in torchattacks, and with its order of arguments; but `alpha` is called `step_size` here, and
    the climb starts at x unless `random_start=True`, where theirs starts at random. The defaults
    are the paper's protocol: start at x, climb the cross-entropy, judge the last iterate.

    Args:
        model: any classifier of images in [lower, upper]; normalisation belongs inside it. A plain
            function from images to logits will do: it is called as it is, where a module is put
            into eval mode.
        eps: radius of the ball around x, in pixel units: a number, or a tensor [N].
        step_size: of one step, likewise, torchattacks' `alpha`. linf: per pixel. l2, l1: the
            length of the step. None: 2.5 eps / steps, which is 2/255 for the other defaults.
        steps: how many.
        norm: "linf", "l2" or "l1".
        random_start: start at a point drawn uniformly from the ball instead of at x.
        targeted: y are the classes to reach, not the true ones.
        restarts: how many times to try. For each image the first try that fools the model is
            kept, else the one with the highest objective. More than one needs `random_start`.
        objective: what to climb; by default cross-entropy (targeted: its negative). A
            discrepancy or divergence from x is flat at x and needs `random_start`.
        keep: which iterate of a try is its answer: "last", "first_fooled" or "best"; see `ascend`.
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
        if norm not in BALLS:
            raise InputError(f"PGD: norm must be one of {', '.join(BALLS)}, got {norm!r}.")
        steps = require_count("PGD: steps", steps, 0)
        restarts = require_count("PGD: restarts", restarts)
        require_number("PGD: lower", lower)
        require_number("PGD: upper", upper)
        if restarts > 1 and not random_start:
            raise InputError(
                "PGD: restarts from the same point find the same image; "
                "pass random_start=True or restarts=1."
            )
        require_keep(keep)
        objective = CrossEntropy(targeted) if objective is None else objective
        require_a_way_up(objective, random_start)
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
            InputError: shapes, dtypes, devices, pixels or labels do not fit.
        """
        require_generator("PGD", generator)
        generator = generator or self.generator
        y = require_batch("PGD", self.model, x, y, self.targeted, self.lower, self.upper)
        x_adv = self._attempt(self.threat, x, y, generator)
        if self.restarts == 1 or len(x) == 0:
            return x_adv
        value, fooled = self._judge(x, x_adv, y, self.objective)
        for _ in range(1, self.restarts):
            left = (~fooled).nonzero().squeeze(1)
            if len(left) == 0:
                break
            again = self._attempt(self.threat.rows(left), x[left], y[left], generator, left)
            new_value, new_fooled = self._judge(x[left], again, y[left], self.objective.rows(left))
            better = new_fooled | (new_value > value[left])
            chosen = left[better]
            x_adv[chosen], value[chosen] = again[better], new_value[better]
            fooled[chosen] = new_fooled[better]
        return x_adv

    def _attempt(
        self,
        threat: Threat,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None,
        rows: Tensor | None = None,
    ) -> Tensor:
        return ascend(
            self.model,
            threat,
            self.objective if rows is None else self.objective.rows(rows),
            x,
            y,
            self.steps,
            random_start=self.random_start,
            generator=generator,
            keep=self.keep,
            targeted=self.targeted,
        )

    def _judge(
        self, x: Tensor, x_adv: Tensor, y: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """x' [N, ...] -> the objective's value [N] and whether the model is fooled [N]."""
        with eval_mode(self.model), own_autograd(x.device.type), torch.no_grad():
            value = objective.prepare(Outputs(self.model, x).detach(), y)
            adv = Outputs(self.model, x_adv)
            return value(adv), is_fooled(adv.logits, y, self.targeted)
