"""What attacks climb: a number for each image at x'. Also the terms of the training losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_count, require_one_of
from ..models.gap import Needs, widest
from ..ops.discrepancy import Reduction
from .outputs import Outputs

Value = Callable[[Outputs], Tensor]
Units = Literal["paper", "release"]
SMALLEST_RANGE = 1e-12  # added to DLR's denominators, as Croce and Hein's program does


class Objective(Described, ABC):
    """A number per image, [N], that an attack climbs.

    A new objective implements `prepare`. Objectives add up and scale: `a + 0.01 * b`, where the
    weight may also be a tensor [N]. The terms of a sum share one forward pass.

    Attributes:
        flat_at_x: whether its value and gradient vanish at x' = x, as those of every distance do.
            Such an objective is climbed from a random start.
        needs: what it reads of a pass beside the images: "logits"; "sums", A's over its positions;
            "maps", `features` and `weight` as far as the class maps that they give; or "features",
            A itself. The less it needs, the cheaper the network that serves; see
            `fastinterp.models.freeze.fold`.
    """

    flat_at_x: bool = False
    needs: Needs = "features"

    @abstractmethod
    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        """Clean outputs and labels [N] -> a function from the outputs at x' to values [N].

        What depends on the clean images alone belongs outside the returned function.
        """

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
    """Cross-entropy at x'. Targeted: its negative, with the targets as labels.

    Args:
        smoothing: the share of each label that all classes get alike (label smoothing).
    """

    needs: Needs = "logits"

    def __init__(self, targeted: bool = False, smoothing: float = 0.0) -> None:
        self.sign = -1.0 if targeted else 1.0
        self.smoothing = smoothing

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        def value(adv: Outputs) -> Tensor:
            loss = F.cross_entropy(
                adv.logits, labels, reduction="none", label_smoothing=self.smoothing
            )
            return loss if self.sign > 0 else -loss

        return value


class Margin(Objective):
    """max_{j != t} f_j(x') - f_t(x'): positive once x' is misclassified (Carlini & Wagner, 2017).

    Targeted: f_target - max_{j != target} f_j, with the targets as labels.
    """

    needs: Needs = "logits"

    def __init__(self, targeted: bool = False) -> None:
        self.sign = -1.0 if targeted else 1.0

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        column = labels[:, None]

        def value(adv: Outputs) -> Tensor:
            logits = adv.logits
            others = logits.scatter(1, column, -torch.inf).amax(dim=1)
            return self.sign * (others - logits.gather(1, column).squeeze(1))

        return value


class MarginTowards(Objective):
    """f_j(x') - f_t(x') for the wrong class j that is the rank-th likeliest at x (1: the first).

    Any wrong class counts as a success, so this remains an untargeted attack.
    """

    needs: Needs = "logits"

    def __init__(self, rank: int = 1) -> None:
        self.rank = require_count(f"{type(self).__name__}: rank", rank)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        true, aim = labels[:, None], likeliest_wrong(clean.logits, labels, self.rank)[:, None]

        def value(adv: Outputs) -> Tensor:
            return (adv.logits.gather(1, aim) - adv.logits.gather(1, true)).squeeze(1)

        return value


class DLR(Margin):
    """`Margin` over the difference of the largest and the third largest logit.

    The difference-of-logits ratio of Croce and Hein (2020): multiplying or shifting the logits
    does not change it. Targeted: likewise, with the targets as labels.

    Raises:
        InputError: when climbed, if there are fewer than three classes.
    """

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        margin = super().prepare(clean, labels)

        def value(adv: Outputs) -> Tensor:
            top = _largest("DLR", adv.logits, 3)
            return margin(adv) / (top[:, 0] - top[:, 2] + SMALLEST_RANGE)

        return value


class DLRTowards(MarginTowards):
    """`MarginTowards` over the largest logit less the mean of the third and fourth largest.

    The targeted difference-of-logits ratio of Croce and Hein (2020). AutoAttack aims at the classes
    of ranks 1 to 9 in turn.

    Raises:
        InputError: when climbed, if there are fewer than four classes.
    """

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        margin = super().prepare(clean, labels)

        def value(adv: Outputs) -> Tensor:
            top = _largest("DLRTowards", adv.logits, 4)
            return margin(adv) / (top[:, 0] - top[:, 2:].mean(dim=1) + SMALLEST_RANGE)

        return value


class KL(Objective):
    """KL(softmax f(x) || softmax f(x')), the regulariser of TRADES (Zhang et al., 2019)."""

    flat_at_x = True
    needs: Needs = "logits"

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
    needs: Needs = "maps"

    def __init__(
        self,
        reduction: Reduction = "weighted",
        units: Units = "paper",
    ) -> None:
        self.reduction = require_one_of("Discrepancy: reduction", reduction, get_args(Reduction))
        self.units = require_one_of("Discrepancy: units", units, get_args(Units))

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        features = clean.features
        # Under autocast the features are of a half type and the classifier is not.
        weight = clean.weight.to(features.dtype)
        bias = None if clean.bias is None else clean.bias.to(features.dtype)
        scale = self.scale(features)

        def value(adv: Outputs) -> Tensor:
            literal: Tensor = ops.discrepancy(
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

    def scale(self, features: Tensor) -> int:
        """How many times the literal value of eq. (8) it is, for features [N, K, h, w]."""
        if self.units == "paper":
            return 1
        positions = features.shape[2] * features.shape[3]
        return 2 * positions if self.reduction == "weighted" else positions


class Sum(Objective):
    """The sum of objectives; they share one pass at x and one at x'."""

    def __init__(self, *terms: Objective) -> None:
        self.terms = terms
        self.flat_at_x = all(term.flat_at_x for term in terms)
        self.needs = widest(term.needs for term in terms)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        values = [term.prepare(clean, labels) for term in self.terms]

        def value(adv: Outputs) -> Tensor:
            total = values[0](adv)
            for other in values[1:]:
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
        self.flat_at_x, self.needs = term.flat_at_x, term.needs

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        term, weight = self.term.prepare(clean, labels), self.weight

        def value(adv: Outputs) -> Tensor:
            return weight * term(adv)

        return value

    def rows(self, index: Tensor) -> Objective:
        weight = self.weight
        picked = weight[index] if isinstance(weight, Tensor) and weight.dim() > 0 else weight
        return Scaled(self.term.rows(index), picked)


def likeliest_wrong(logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """Logits [N, C] -> the wrong class [N] that is the rank-th likeliest, or the last there is."""
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.topk(min(rank, wrong.shape[1] - 1), dim=1).indices[:, -1]


def _largest(who: str, logits: Tensor, count: int) -> Tensor:
    """Logits [N, C] -> the largest ones [N, count], in order."""
    if logits.shape[1] < count:
        raise InputError(
            f"{who} needs at least {count} classes, got {logits.shape[1]}; climb Margin() instead."
        )
    return logits.topk(count, dim=1).values


def require_objective(name: str, objective: object) -> None:
    """Raise unless it is an Objective, made and not just named."""
    if isinstance(objective, Objective):
        return
    if isinstance(objective, type) and issubclass(objective, Objective):
        got = f"the class; write {objective.__name__}()"
    else:
        got = f"{objective!r}; fastinterp.attacks has them"
    raise InputError(f"{name} must be an Objective such as CrossEntropy() or Margin(), got {got}.")


def require_climbable(objective: Objective, random_start: bool) -> None:
    """Raise if the attack would start where the objective's gradient is zero."""
    require_objective("objective", objective)
    if objective.flat_at_x and not random_start:
        raise InputError(
            "A discrepancy or divergence between x and x' has no gradient at x' = x; "
            "pass random_start=True."
        )
