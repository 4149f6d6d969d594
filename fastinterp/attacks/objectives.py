"""What an attack climbs: a number per image, at x'. Also the terms of the training losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import ops
from ..errors import InputError
from .outputs import Outputs

Value = Callable[[Outputs], Tensor]


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

    def __init__(self, objective: Objective, clean: Outputs, labels: Tensor) -> None:
        self._objective = objective
        self._clean = clean
        self._labels = labels
        with torch.no_grad():
            self._value = objective.prepare(clean, labels)

    def __call__(self, x_adv: Tensor) -> Scored:
        """Images x_adv [N, ...] -> value [N] and the pass at x_adv."""
        outputs = Outputs(self._clean.model, x_adv)
        return Scored(self._value(outputs), outputs)

    def rows(self, index: Tensor) -> Bound:
        """The same for the images named by `index` [M] alone; no pass is repeated."""
        return Bound(self._objective.rows(index), self._clean.rows(index), self._labels[index])


class Objective(ABC):
    """A number per image, [N], that an attack climbs.

    A new objective implements `prepare`. Objectives add up and scale: `a + 0.01 * b`, where the
    weight may also be a tensor [N]. The terms of a sum share one forward pass.

    Attributes:
        flat_at_x: whether its value and gradient vanish at x' = x, as those of every distance do.
            Such an objective is climbed from a random start.
    """

    flat_at_x: bool = False

    @abstractmethod
    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        """Clean outputs and labels [N] -> a function from the outputs at x' to values [N].

        What depends on the clean images alone belongs outside the returned function.
        """

    def bind(
        self, model: nn.Module, x: Tensor, labels: Tensor, clean: Outputs | None = None
    ) -> Bound:
        """Compute what depends on x [N, ...] and labels [N] once; the rest depends on x'.

        Args:
            clean: the model's outputs at x, where the caller has them already.
        """
        return Bound(self, (clean or Outputs(model, x)).detach(), labels)

    def rows(self, index: Tensor) -> Objective:
        """This objective for some of the images. Only one that holds tensors [N] overrides it."""
        return self

    def __add__(self, other: Objective) -> Objective:
        return Sum(self, other)

    def __mul__(self, weight: float | Tensor) -> Objective:
        return Scaled(self, weight)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return Scaled(self, -1.0)


class CrossEntropy(Objective):
    """Cross-entropy at x'. Targeted: its negative, with the targets as labels."""

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

    def __init__(
        self,
        reduction: Literal["weighted", "1-class"] = "weighted",
        units: Literal["paper", "release"] = "paper",
    ) -> None:
        if reduction not in ("weighted", "1-class"):
            raise InputError(
                f'Discrepancy: reduction must be "weighted" or "1-class", got {reduction!r}.'
            )
        if units not in ("paper", "release"):
            raise InputError(f'Discrepancy: units must be "paper" or "release", got {units!r}.')
        self.reduction = reduction
        self.units = units

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        features = clean.features
        # Under autocast the features are of a half type and the classifier is not.
        weight = clean.weight.to(features.dtype)
        bias = None if clean.bias is None else clean.bias.to(features.dtype)
        scale = self._scale(features)

        def value(adv: Outputs) -> Tensor:
            literal = ops.discrepancy(
                features,
                adv.features,
                weight,
                labels,
                bias=bias,
                reduction=self.reduction,
                validate=False,
            )
            return literal if scale == 1 else scale * literal

        return value

    def _scale(self, features: Tensor) -> int:
        if self.units == "paper":
            return 1
        positions = features.shape[2] * features.shape[3]
        return 2 * positions if self.reduction == "weighted" else positions


class Sum(Objective):
    """The sum of objectives; they share one pass at x and one at x'."""

    def __init__(self, *terms: Objective) -> None:
        self.terms = terms
        self.flat_at_x = all(term.flat_at_x for term in terms)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        first, *others = [term.prepare(clean, labels) for term in self.terms]

        def value(adv: Outputs) -> Tensor:
            total = first(adv)
            for other in others:
                total = total + other(adv)
            return total

        return value

    def rows(self, index: Tensor) -> Objective:
        return Sum(*(term.rows(index) for term in self.terms))


class Scaled(Objective):
    """An objective times a number, or times one for each image [N]."""

    def __init__(self, term: Objective, weight: float | Tensor) -> None:
        self.term = term
        self.weight = weight
        self.flat_at_x = term.flat_at_x

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        inner, weight = self.term.prepare(clean, labels), self.weight

        def value(adv: Outputs) -> Tensor:
            return weight * inner(adv)

        return value

    def rows(self, index: Tensor) -> Objective:
        weight = self.weight
        picked = weight[index] if isinstance(weight, Tensor) and weight.dim() > 0 else weight
        return Scaled(self.term.rows(index), picked)


def require_a_way_up(objective: Objective, random_start: bool) -> None:
    """Raise if the climb would begin where the objective's gradient is zero."""
    if objective.flat_at_x and not random_start:
        raise InputError(
            "A discrepancy or divergence between x and x' has no gradient at x' = x; "
            "pass random_start=True."
        )
