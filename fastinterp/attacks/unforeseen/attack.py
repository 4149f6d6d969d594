"""The unforeseen attacks as users call them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._utils.described import Described
from ..._utils.keywords import hint_keywords
from ..._utils.require import require_count
from ..ascent import Keep, ascend, require_keep
from ..checks import as_module, require_batch, require_generator
from ..objectives import CrossEntropy, Objective, require_objective
from ..step_size import require_moving
from ..threats import Threat, require_radius
from ..watch import Watch


class UnforeseenAttack(Described):
    """An attack of Kang et al. (2019): a threat other than a ball of pixels, climbed by `ascend`.

    It is called as `x_adv = attack(x, y)`. Every image starts at random; what it draws does not
    depend on the rest of its batch.

    Table 5 of the paper attacks towards random classes (`targeted=True`, with the targets of
    `fastinterp.evaluation.paper_selection`) and counts the images still classified correctly.
    Untargeted attacks, the default, are stronger.

    Args:
        model: any classifier of images in [0, 1]; normalisation belongs inside it.
        threat: where x' may go.
        steps: number of steps.
        targeted: y are the classes to reach, not the true ones.
        objective: what to climb; by default cross-entropy (targeted: its negative).
        keep: which iterate is returned: "last", "first_fooled" or "best"; see `ascend`.
        generator: for reproducible starts.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        threat: Threat,
        steps: int = 200,
        *,
        targeted: bool = False,
        objective: Objective | None = None,
        keep: Keep = "last",
        generator: torch.Generator | None = None,
    ) -> None:
        who = type(self).__name__
        require_keep(keep)
        require_generator(who, generator)
        self.model = as_module(who, model)
        self.threat = threat
        self.steps = require_count(f"{who}: steps", steps, 0)
        self.targeted = targeted
        self.objective = CrossEntropy(targeted) if objective is None else objective
        require_objective(f"{who}: objective", self.objective)
        self.keep: Keep = keep
        self.generator = generator

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, C, H, W] in [0, 1], on the model's device.
            y: true classes [N]; targets if `targeted`.
            generator: used instead of the one given at construction.

        Returns:
            x_adv, like x, in [0, 1], detached.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; the gradient by the
                images is not finite.
        """
        require_generator(type(self).__name__, generator)
        y = require_batch(type(self).__name__, self.model, x, y, self.targeted)
        if len(x) == 0:
            return x.detach().clone()
        watch = Watch()
        x_adv = ascend(
            self.model,
            watch.over(self.threat),
            self.objective,
            x,
            y,
            self.steps,
            random_start=True,
            generator=generator or self.generator,
            keep=self.keep,
            targeted=self.targeted,
        )
        watch.require_finite(type(self).__name__, x_adv)
        return x_adv


@hint_keywords
class SizedAttack(UnforeseenAttack):
    """An attack whose threat is made of a size and a step size alone.

    Args:
        eps: size of the perturbation, in the units of the threat; None takes `published_eps`.
        steps: number of steps.
        step_size: of one step; None takes Kang et al.'s eps / sqrt(steps).

    Raises:
        InputError: a setting is out of its range.
    """

    published_eps: ClassVar[float]

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor | None = None,
        steps: int = 200,
        step_size: float | Tensor | None = None,
        *,
        targeted: bool = False,
        objective: Objective | None = None,
        keep: Keep = "last",
        generator: torch.Generator | None = None,
    ) -> None:
        who = type(self).__name__
        eps = self.published_eps if eps is None else eps
        require_radius(f"{who}: eps", eps)
        steps = require_count(f"{who}: steps", steps, 0)
        step_size = eps / math.sqrt(max(steps, 1)) if step_size is None else step_size
        require_radius(f"{who}: step_size", step_size)
        require_moving(who, eps, step_size, steps)
        super().__init__(
            model,
            self._threat(eps, step_size),
            steps,
            targeted=targeted,
            objective=objective,
            keep=keep,
            generator=generator,
        )

    @abstractmethod
    def _threat(self, eps: Any, step_size: Any) -> Threat: ...
