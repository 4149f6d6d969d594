"""What an attack climbs: a number per image, at x'. Also the terms of the training losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import ops
from .._utils.described import Described
from .._utils.errors import InputError
from ..models.gap import Keeps, widest
from ..ops.discrepancy import Reduction
from .outputs import Outputs, Precision
from .passes import Passes
from .slopes import ScaledValue, Slopes, SumValue, Value, slopes_of


class Scored(NamedTuple):
    """An objective at x'.

    Attributes:
        value: [N], to be climbed.
        outputs: the pass at x' that gave it.
    """

    value: Tensor
    outputs: Outputs

    @property
    def logits(self) -> Tensor:
        """[N, C] at x', from the same pass."""
        return self.outputs.logits


class Bound:
    """An objective with everything that depends on x and the labels already computed."""

    def __init__(
        self, objective: Objective, clean: Outputs, labels: Tensor, passes: Passes
    ) -> None:
        self._objective = objective
        self._clean = clean
        self._labels = labels
        self._passes = passes
        with torch.no_grad():
            self._value = objective.prepare(clean, labels)

    def __call__(self, x_adv: Tensor) -> Scored:
        """Images x_adv [N, ...] -> value [N] and the pass at x_adv."""
        outputs = self._passes(x_adv)
        return Scored(self._value(outputs), outputs)

    def slopes(self, x_adv: Tensor) -> Slopes:
        """Where the backward pass to x_adv may begin; see `SlopedValue`."""
        return slopes_of(self._value, self._passes(x_adv))

    def rows(self, index: Tensor) -> Bound:
        """The same for the images named by `index` [M] alone; no pass is repeated."""
        objective, clean = self._objective.rows(index), self._clean.rows(index)
        return Bound(objective, clean, self._labels[index], self._passes)


class Objective(Described, ABC):
    """A number per image, [N], that an attack climbs.

    A new objective implements `prepare`. A function that it returns will do; a `SlopedValue` saves
    the ascent a part of its backward pass. Objectives add up and scale: `a + 0.01 * b`, where the
    weight may also be a tensor [N]. The terms of a sum share one forward pass.

    Attributes:
        flat_at_x: whether its value and gradient vanish at x' = x, as those of every distance do.
            Such an objective is climbed from a random start.
        needs: what it reads of a pass beside the images: "logits"; "sums", A's over its positions;
            "maps", `features` and `weight` as far as the class maps that they give; or "features",
            A itself. What is not needed may come from a shorter network with the same logits; see
            `GapClassifier.folded`.
    """

    flat_at_x: bool = False
    needs: Keeps = "features"

    @abstractmethod
    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        """Clean outputs and labels [N] -> a function from the outputs at x' to values [N].

        What depends on the clean images alone belongs outside the returned function.
        """

    def bind(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        clean: Outputs | None = None,
        precision: Precision = "float32",
    ) -> Bound:
        """Compute what depends on x [N, ...] and labels [N] once; the rest depends on x'.

        Args:
            clean: the model's outputs at x, where the caller has them already.
            precision: of the passes at x'; see `Outputs`.
        """
        clean = (clean or Outputs(model, x)).detach()
        return Bound(self, clean, labels, Passes(clean.model, x, precision))

    def rows(self, index: Tensor) -> Objective:
        """This objective for some of the images. Only one that holds tensors [N] overrides it."""
        return self

    def __add__(self, other: Objective) -> Objective:
        require_objective("what is added to an objective", other)
        return Sum(self, other)

    def __mul__(self, weight: float | Tensor) -> Objective:
        is_number = isinstance(weight, (Real, Tensor)) and not isinstance(weight, bool)
        if not is_number or (isinstance(weight, Tensor) and weight.dim() > 1):
            got = f"shape {list(weight.shape)}" if isinstance(weight, Tensor) else repr(weight)
            raise InputError(f"an objective's weight must be a number or a tensor [N], got {got}.")
        return Scaled(self, weight)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return Scaled(self, -1.0)


class CrossEntropy(Objective):
    """Cross-entropy at x'. Targeted: its negative, with the targets as labels."""

    needs: Keeps = "logits"

    def __init__(self, targeted: bool = False) -> None:
        self.sign = -1.0 if targeted else 1.0

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        def value(adv: Outputs) -> Tensor:
            loss = F.cross_entropy(adv.logits, labels, reduction="none")
            return loss if self.sign > 0 else -loss

        return value


class Margin(Objective):
    """max_{j != t} f_j(x') - f_t(x'): positive once x' is misclassified (Carlini & Wagner, 2017).

    Targeted: f_target - max_{j != target} f_j, with the targets as labels.
    """

    needs: Keeps = "logits"

    def __init__(self, targeted: bool = False) -> None:
        self.sign = -1.0 if targeted else 1.0

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        column = labels[:, None]

        def value(adv: Outputs) -> Tensor:
            logits = adv.logits
            others = logits.scatter(1, column, -torch.inf).amax(dim=1)
            return self.sign * (others - logits.gather(1, column).squeeze(1))

        return value


class KL(Objective):
    """KL(softmax f(x) || softmax f(x')), the regulariser of TRADES (Zhang et al., 2019)."""

    flat_at_x = True
    needs: Keeps = "logits"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        log_p = F.log_softmax(clean.logits, dim=1)  # [N, C]
        p = log_p.exp()

        def value(adv: Outputs) -> Tensor:
            return (p * (log_p - F.log_softmax(adv.logits, dim=1))).sum(dim=1)

        return value


class Discrepancy(Objective):
    """Interpretability discrepancy of the CAMs at x and x': eq. (8), or its 1-class form.

    Args:
        reduction: "weighted" (eq. 8) or "1-class" (the true class's map alone).
        units: "paper" takes eqs. (1) and (8) literally. "release" leaves out the 1/u of eq. (1)
            and the 1/2 of eq. (8), with u = h * w positions, as the authors' programs did: the
            literal value times 2u, or u for the 1-class form. The paper's gamma = 0.01 belongs
            to these units.
    """

    flat_at_x = True
    needs: Keeps = "maps"

    def __init__(
        self,
        reduction: Reduction = "weighted",
        units: Literal["paper", "release"] = "paper",
    ) -> None:
        if reduction not in ("weighted", "1-class"):
            raise InputError(
                f'Discrepancy: reduction must be "weighted" or "1-class", got {reduction!r}.'
            )
        if units not in ("paper", "release"):
            raise InputError(f'Discrepancy: units must be "paper" or "release", got {units!r}.')
        self.reduction: Reduction = reduction
        self.units = units

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        return _FusedDiscrepancy(clean, labels, self.reduction, self._scale(clean.features))

    def _scale(self, features: Tensor) -> int:
        if self.units == "paper":
            return 1
        positions = features.shape[2] * features.shape[3]
        return 2 * positions if self.reduction == "weighted" else positions


class _FusedDiscrepancy:
    """scale * D between the maps at x and x', and its slope by A', which the op leaves behind."""

    def __init__(self, clean: Outputs, labels: Tensor, reduction: Reduction, scale: int) -> None:
        self.features = clean.features
        self.labels, self.reduction, self.scale = labels, reduction, scale
        # Under autocast the features are of a half type and the classifier is not.
        self.weight = clean.weight.to(self.features.dtype)
        self.bias = None if clean.bias is None else clean.bias.to(self.features.dtype)

    def __call__(self, adv: Outputs) -> Tensor:
        literal: Tensor = self._call(ops.discrepancy, adv)
        return literal if self.scale == 1 else self.scale * literal

    def slopes(self, adv: Outputs) -> Slopes:
        _, slope = self._call(ops.discrepancy_and_gradient, adv)
        return [(adv.features, slope if self.scale == 1 else slope.mul_(self.scale))]

    def _call(self, op: Callable[..., Any], adv: Outputs) -> Any:
        return op(
            self.features,
            adv.features,
            self.weight,
            self.labels,
            bias=self.bias,
            reduction=self.reduction,
            validate=False,
        )


class Sum(Objective):
    """The sum of objectives; they share one pass at x and one at x'."""

    def __init__(self, *terms: Objective) -> None:
        self.terms = terms
        self.flat_at_x = all(term.flat_at_x for term in terms)
        self.needs = widest(term.needs for term in terms)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        return SumValue([term.prepare(clean, labels) for term in self.terms])

    def rows(self, index: Tensor) -> Objective:
        return Sum(*(term.rows(index) for term in self.terms))


class Scaled(Objective):
    """An objective times a number, or times one for each image [N]."""

    def __init__(self, term: Objective, weight: float | Tensor) -> None:
        self.term = term
        self.weight = weight
        self.flat_at_x, self.needs = term.flat_at_x, term.needs

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        return ScaledValue(self.term.prepare(clean, labels), self.weight)

    def rows(self, index: Tensor) -> Objective:
        weight = self.weight
        picked = weight[index] if isinstance(weight, Tensor) and weight.dim() > 0 else weight
        return Scaled(self.term.rows(index), picked)


def require_objective(name: str, objective: object) -> None:
    """Raise unless it is an Objective, made and not just named."""
    if isinstance(objective, Objective):
        return
    if isinstance(objective, type) and issubclass(objective, Objective):
        got = f"the class; write {objective.__name__}()"
    else:
        got = f"{objective!r}; fastinterp.attacks has them"
    raise InputError(f"{name} must be an Objective such as CrossEntropy() or Margin(), got {got}.")


def require_a_way_up(objective: Objective, random_start: bool) -> None:
    """Raise if the climb would begin where the objective's gradient is zero."""
    require_objective("objective", objective)
    if objective.flat_at_x and not random_start:
        raise InputError(
            "A discrepancy or divergence between x and x' has no gradient at x' = x; "
            "pass random_start=True."
        )
