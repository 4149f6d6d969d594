"""The smallest perturbation that fools the model, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_one_of, require_positive
from ..ops.pgd_step import Norm
from .ascent import Keep, ascend, is_fooled, require_keep
from .bisection import Bisection
from .checks import as_module, require_batch
from .modes import eval_mode, own_autograd
from .objectives import CrossEntropy, Objective, require_climbable
from .threats import BALLS, Threat
from .watch import Watch, require_finite_logits


@dataclass(frozen=True)
class MinimalResult:
    """What `MinimalPGD` found; every field has a row an image.

    Attributes:
        x_adv: [N, ...], the image that fools the model within eps; the last one tried where none
            does.
        success: bool [N].
        eps: [N], the smallest radius with a successful attack: 0 where x itself fools the model,
            infinity where no radius was found.
    """

    x_adv: Tensor
    success: Tensor
    eps: Tensor


@hint_keywords
class MinimalPGD(Described):
    """Projected gradient descent with the smallest radius that succeeds, by bisection (appendix D).

    All images run as one batch, each with its own radius. Each round attacks anew from x, with
    steps of `relative_step` times the radius. Images that the model gets wrong (targeted:
    classifies as the target) from the start, and images whose range is narrower than the
    bisection's tolerance, leave the batch.

    Args:
        model: any classifier of images in [lower, upper], as for `PGD`.
        steps: of each attack.
        relative_step: step size over radius; see `fastinterp.ops.pgd_step` for its meaning by norm.
        norm: "linf", "l2" or "l1".
        targeted: y are the classes to reach.
        objective: what to climb; by default cross-entropy (targeted: its negative).
        keep: which iterate is judged; see `ascend`.
        search: start, range, rounds and tolerance; by default 10 rounds from 0.05 within 0..1,
            which suits linf. l2 and l1 need a wider range.
        threat: radii [N] -> the threat, in place of norm and relative_step.
        lower, upper: the range of valid pixels.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        steps: int = 10,
        relative_step: float = 0.2,
        norm: Norm = "linf",
        targeted: bool = False,
        objective: Objective | None = None,
        keep: Keep = "first_fooled",
        search: Bisection | None = None,
        threat: Callable[[Tensor], Threat] | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_one_of("MinimalPGD: norm", norm, BALLS)
        steps = require_count("MinimalPGD: steps", steps)
        require_positive("MinimalPGD: relative_step", relative_step)
        require_keep(keep)
        if search is not None and not isinstance(search, Bisection):
            raise InputError(f"MinimalPGD: search must be a Bisection, got {search!r}.")
        objective = CrossEntropy(targeted) if objective is None else objective
        require_climbable(objective, random_start=False)
        self.model = as_module("MinimalPGD", model)
        self.steps = steps
        self.targeted = targeted
        self.objective = objective
        self.keep: Keep = keep
        self.search = search or Bisection(start=0.05)
        self.threat = threat or (lambda eps: BALLS[norm](eps, relative_step * eps, lower, upper))
        self.lower, self.upper = lower, upper

    def __call__(self, x: Tensor, y: Tensor) -> MinimalResult:
        """Attack a batch.

        Args:
            x: images [N, ...] in [lower, upper], on the model's device.
            y: true classes [N]; targets if `targeted`.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; the gradient by the
                images is not finite.
        """
        y = require_batch("MinimalPGD", self.model, x, y, self.targeted, self.lower, self.upper)
        x = x.detach()
        x_adv = x.clone()
        at_once = self._fooled(x, y)
        left = (~at_once).nonzero().squeeze(1)  # the images that need a perturbation

        def succeeds(rows: Tensor, eps: Tensor) -> Tensor:
            chosen = left[rows]
            attacked = ascend(
                self.model,
                watch.over(self.threat(eps)),
                self.objective.rows(chosen),
                x[chosen],
                y[chosen],
                self.steps,
                keep=self.keep,
                targeted=self.targeted,
            )
            watch.require_finite("MinimalPGD", attacked)
            success = self._fooled(attacked, y[chosen])
            # A success is never replaced by a later failure with a smaller radius.
            replace = success | ~known[rows]
            x_adv[chosen[replace]] = attacked[replace]
            known[rows] |= success
            return success

        watch = Watch()
        known = torch.zeros_like(left, dtype=torch.bool)
        smallest, found = self.search.search(succeeds, x[left], "smallest")
        eps = x.new_zeros(len(x))
        eps[left] = torch.where(found, smallest, torch.inf)
        return MinimalResult(x_adv, success=eps.isfinite(), eps=eps)

    def _fooled(self, x: Tensor, y: Tensor) -> Tensor:
        with eval_mode(self.model), own_autograd(x.device.type), torch.no_grad():
            if len(x) == 0:
                return y == y
            logits = self.model(x)
            require_finite_logits("MinimalPGD", logits)
            return is_fooled(logits, y, self.targeted)
