"""Interpretability sneaking attack: fool the classifier, leave the explanation, eq. (6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import (
    require_count,
    require_nonnegative,
    require_number,
    require_one_of,
    require_positive,
)
from ..interpreters import Interpreter
from ..interpreters.distance import ClassSet, class_set, map_distance
from ..ops.pgd_step import Norm
from .ascent import ascend, is_fooled
from .bisection import Bisection
from .checks import count_classes, require_batch, require_labels, require_range
from .map_objectives import Capped, MapDistance, map_reader, release_scale, require_same_model
from .minimal import MinimalPGD
from .modes import eval_mode, own_autograd
from .objectives import Margin
from .outputs import Outputs
from .threats import BALLS, SoftSignBall, Threat, require_radius
from .watch import Watch, require_finite_logits


@dataclass(frozen=True)
class ISAResult:
    """What `ISA` found; every field has a row an image.

    Attributes:
        x_adv: [N, C_in, H, W].
        success: bool [N], whether x_adv is classified as the target.
        eps: [N], the radius around x in which x_adv lies. 0 where x itself is classified as the
            target, infinity where no radius fools the model; x_adv is x in both cases.
        weight: [N], the largest weight of the discrepancy with which the attack succeeded, 0 where
            it succeeded with none. NaN where eps is 0 or infinite.
        discrepancy: [N], eq. (3) between x and x_adv.
    """

    x_adv: Tensor
    success: Tensor
    eps: Tensor
    weight: Tensor
    discrepancy: Tensor


@hint_keywords
class ISA(Described):
    """Interpretability sneaking attack, eq. (6), as the paper's program runs it for Table 1.

    First the smallest radius with a successful targeted attack is found for each image
    (`isa.smallest`, a `MinimalPGD`). Then, in `penalty` times that radius, the attack climbs
    min(f_t' - max_{j != t'} f_j, margin) - weight * D, and a bisection finds the largest weight
    with which it still succeeds. Both searches run on all images as one batch, each image with its
    own radius and weight. Images that are classified as the target from the start leave the batch
    at once. Images that no attack fools leave it after the first search.

    A step is `relative_step` times the radius times clip(gain * gradient, -1, 1). The program had
    gain 1000 and took the gradient of the batch's mean. Here each image has its own gradient, which
    does not depend on the rest of the batch; the default gain gives the steps of a batch of 100.

    The weight is in the program's units: D is eq. (3) of maps without the 1/u of eq. (1), squared
    for l2, and summed over the channels for `Repr`.

    Args:
        model: the network that is attacked.
        interpreter: explains the same model; with `IntegratedGradients` each step differentiates
            the network twice at every point of the path.
        norm: of the discrepancy, "l1" or "l2".
        classes: C of eq. (3): "1-class", "2-class" or "all-class". `Repr` has no classes.
        penalty: radius over the smallest successful one, at least 1.
        steps: of each attack.
        relative_step, gain: of a step, see above. Only linf has a gain.
        margin: tau of eq. (6); more confidence than this is not sought.
        ball: where x_adv may go, "linf", "l2" or "l1".
        radii: the search for the radius; by default 10 rounds from 0.05 within 0..1, which suits
            linf.
        weights: the search for the weight; by default 10 rounds from 5e-5 within 0..1.
        lower, upper: the range of valid pixels.

    Raises:
        InputError: a setting is out of its range, or the interpreter explains another model.
    """

    def __init__(
        self,
        model: nn.Module,
        interpreter: Interpreter,
        norm: Literal["l1", "l2"] = "l1",
        classes: ClassSet = "2-class",
        penalty: float = 1.6,
        steps: int = 10,
        relative_step: float = 0.2,
        gain: float = 10.0,
        margin: float = 0.1,
        ball: Norm = "linf",
        radii: Bisection | None = None,
        weights: Bisection | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_same_model("ISA", model, interpreter)
        require_one_of("ISA: norm", norm, ("l1", "l2"))
        require_one_of("ISA: ball", ball, BALLS)
        if not require_number("ISA: penalty", penalty) >= 1:
            raise InputError(f"ISA: penalty must be at least 1, got {penalty!r}.")
        require_nonnegative("ISA: margin", margin)
        require_positive("ISA: relative_step", relative_step)
        require_positive("ISA: gain", gain)
        steps = require_count("ISA: steps", steps)
        for name, search in (("radii", radii), ("weights", weights)):
            if search is not None and not isinstance(search, Bisection):
                raise InputError(f"ISA: {name} must be a Bisection, got {search!r}.")
        require_one_of("ISA: classes", classes, get_args(ClassSet))

        def threat(eps: Tensor) -> Threat:
            if ball == "linf":
                return SoftSignBall(eps, relative_step * eps, lower, upper, gain)
            return BALLS[ball](eps, relative_step * eps, lower, upper)

        threat(torch.zeros(0))  # raises if the range of pixels is empty
        self.model = model
        self.interpreter = interpreter
        self.classes: ClassSet = classes
        self.p: Literal[1, 2] = 1 if norm == "l1" else 2
        self.penalty = penalty
        self.steps = steps
        self.threat = threat
        self.ball: Norm = ball
        self.margin = Capped(Margin(targeted=True), margin)
        self.weights = weights or Bisection(start=5e-5)
        self.smallest = MinimalPGD(
            model,
            steps,
            relative_step,
            targeted=True,
            objective=self.margin,
            keep="last",
            search=radii,
            threat=threat,
            lower=lower,
            upper=upper,
        )
        self.lower, self.upper = lower, upper

    def __call__(
        self, x: Tensor, y: Tensor, targets: Tensor, eps: Tensor | float | None = None
    ) -> ISAResult:
        """Attack a batch.

        Args:
            x: images [N, C_in, H, W] in [lower, upper], on the model's device.
            y: true classes t [N].
            targets: the classes t' [N] to be reached, none of them the true one.
            eps: radii, a number or [N], in place of penalty times the smallest successful ones.
                Images whose entry of a tensor is 0 or infinite stay as they are.

        Raises:
            InputError: shapes, dtypes, devices, pixels, labels or targets do not fit; a gradient
                by the images is not finite.
        """
        targets = require_batch("ISA", self.model, x, targets, True, self.lower, self.upper)
        y = require_labels("ISA", "labels", y, x)
        if len(x):
            require_range("ISA", "labels", y, count_classes("ISA", self.model, x))
        if bool((y == targets).any()):
            raise InputError("ISA: a target must be another class than the true one.")
        x = x.detach()
        radii = self._radii(x, targets, eps)
        left = ((radii > 0) & radii.isfinite()).nonzero().squeeze(1)
        with eval_mode(self.model), own_autograd(x.device.type):
            result = ISAResult(
                x_adv=x.clone(),
                success=self._fooled(x, targets),
                eps=radii,
                weight=torch.full_like(radii, torch.nan),
                discrepancy=torch.zeros_like(radii),
            )
            if len(left):
                found = self._hide(x[left], y[left], targets[left], radii[left])
                for name in ("x_adv", "success", "weight", "discrepancy"):
                    getattr(result, name)[left] = getattr(found, name)
        return result

    def _radii(self, x: Tensor, targets: Tensor, eps: Tensor | float | None) -> Tensor:
        """[N], as given or found; infinity where no attack fools the model."""
        if eps is None:
            return self.penalty * self.smallest(x, targets).eps
        if not isinstance(eps, Tensor):
            require_radius("ISA: eps", eps)
        given = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
        fits = given.shape in ((), (len(x),))
        if not fits or not bool((given >= 0).all()):
            raise InputError(
                f"ISA: eps must be a number >= 0 or a tensor [N] = [{len(x)}] of such, got {eps!r}."
            )
        return given.expand(len(x)).clone()

    @torch.no_grad()
    def _fooled(self, x: Tensor, targets: Tensor) -> Tensor:
        logits = self.model(x)
        require_finite_logits("ISA", logits)
        return is_fooled(logits, targets, targeted=True)

    def _hide(self, x: Tensor, y: Tensor, targets: Tensor, eps: Tensor) -> ISAResult:
        """The attack with the largest weight that succeeds, for images with a finite radius > 0."""
        wanted = class_set(self.classes, y, targets)
        classes = wanted if isinstance(wanted, Tensor) else None
        read = map_reader(self.interpreter, classes)
        with torch.no_grad():
            maps = read(Outputs(self.model, x))
        distance = MapDistance(
            self.interpreter, classes, self.p, squared=self.p == 2, maps=maps
        ) * release_scale(self.interpreter, maps, self.p)
        watch = Watch()
        x_adv = x.clone()
        success = torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def attack(rows: Tensor, weights: Tensor) -> Tensor:
            objective = self.margin + distance.rows(rows) * -weights
            threat = watch.over(self.threat(eps[rows]))
            moved = ascend(self.model, threat, objective, x[rows], targets[rows], self.steps)
            watch.require_finite("ISA", moved)
            fooled = self._fooled(moved, targets[rows])
            replace = fooled | ~success[rows]
            x_adv[rows[replace]] = moved[replace]
            success[rows] |= fooled
            return fooled

        weight, found = self.weights.search(attack, x, "largest")
        rest = (~found).nonzero().squeeze(1)
        if len(rest):  # no weight succeeded; fooling the model alone may
            weight[rest] = 0
            attack(rest, weight[rest])
        with torch.no_grad():
            moved = map_distance(maps, read(Outputs(self.model, x_adv)), self.p).mean(dim=1)
        return ISAResult(x_adv, success, eps, weight, moved)
