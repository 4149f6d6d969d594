"""The training methods: what the inner loop maximises and what the outer step minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_known_name, require_nonnegative, require_one_of
from ..attacks import (
    KL,
    CrossEntropy,
    Discrepancy,
    IGNorm,
    MakeInterpreter,
    MapDiscrepancy,
    Objective,
    Outputs,
)
from ..attacks.map_objectives import Capped
from ..attacks.objectives import Scaled, Sum
from ..interpreters import CAM, IntegratedGradients, Interpreter, Repr
from ..models.gap import Needs, widest
from ..ops.discrepancy import Reduction
from .terms import BoostedCrossEntropy, DoubtfulKL, InputGradient, MapCorrelation, RankingPenalty

Inner = Literal["discrepancy", "cross-entropy"]


class OneStep(NamedTuple):
    """The inner loop of a method that takes one step; its sizes are multiples of eps.

    Attributes:
        noise: radius of the ball that x' starts in.
        step: size of the step.
        projected: whether x' is projected to the ball of radius eps after the step.
    """

    noise: float
    step: float
    projected: bool


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table below, with its weight filled in.

    Attributes:
        name: as in `METHODS`.
        gamma: weight of the regulariser; None if there is none.
        inner: maximised over x' in the ball; None for a method without x'.
        on_clean: term of the outer loss at x, or None.
        on_adv: term of the outer loss at x', or None.
        one_step: the inner loop, if it is one step; None for that of the settings.
        options: choices beside the table's row, as a run's settings record them.
    """

    name: str
    gamma: float | None
    inner: Objective | None
    on_clean: Objective | None
    on_adv: Objective | None
    one_step: OneStep | None = None
    options: dict[str, str] = field(default_factory=dict)

    @cached_property
    def needs(self) -> Needs:
        """What its objectives read of a pass; see `Objective`."""
        terms = (self.inner, self.on_clean, self.on_adv)
        return widest(term.needs for term in terms if term is not None)

    def loss(self, clean: Outputs, adv: Outputs | None, labels: Tensor) -> Tensor:
        """The outer loss per image, [N], from the outputs at x and x'."""
        terms = []
        if self.on_clean is not None:
            terms.append(self.on_clean.prepare(clean, labels)(clean))
        if self.on_adv is not None and adv is not None:
            terms.append(self.on_adv.prepare(clean, labels)(adv))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def require_served(self, model: nn.Module) -> None:
        """Raise unless a network that is no GapClassifier gives all that the objectives read."""
        for term in (self.inner, self.on_clean, self.on_adv):
            for part in [] if term is None else parts(term):
                if isinstance(part, (MapDiscrepancy, MapCorrelation, RankingPenalty)):
                    if part.make_interpreter is not None:
                        part.make_interpreter(model)
                elif isinstance(part, Discrepancy):
                    raise InputError(
                        f"The method {self.name!r} compares class activation maps, which "
                        f"{type(model).__name__} does not have: make a GapClassifier of it with "
                        "fastinterp.models.wrap, or pass interpreter=IntegratedGradients."
                    )

    def smoothed(self, smoothing: float) -> Method:
        """The method with label smoothing in its outer loss."""
        on_clean, on_adv = (smooth(term, smoothing) for term in (self.on_clean, self.on_adv))
        return replace(self, on_clean=on_clean, on_adv=on_adv)


def parts(term: Objective) -> list[Objective]:
    """The objectives that a sum, or one that is weighed or capped, is made of."""
    if isinstance(term, Sum):
        return [one for part in term.terms for one in parts(part)]
    return parts(term.term) if isinstance(term, (Scaled, Capped)) else [term]


def smooth(term: Objective | None, smoothing: float) -> Objective | None:
    """An objective with label smoothing in its cross-entropies."""
    if isinstance(term, Sum):
        smoothed = [smooth(part, smoothing) for part in term.terms]
        return Sum(*(part for part in smoothed if part is not None))
    if isinstance(term, Scaled):
        inner = smooth(term.term, smoothing)
        return term if inner is None else Scaled(inner, term.weight)
    return CrossEntropy(smoothing=smoothing) if type(term) is CrossEntropy else term


CE = CrossEntropy()
TO_CLEAN = KL()
R = IGNorm(steps=5, units="release")


def correlation(interpreter: MakeInterpreter | None) -> Objective:
    """1 minus the correlation of maps, halved; by default of as many steps of IG as IG-Norm's."""
    return MapCorrelation(interpreter or partial(IntegratedGradients, steps=5))


Terms = tuple[Objective | None, Objective | None, Objective | None]


class MethodRow(NamedTuple):
    """A method without its weight and its discrepancy.

    Attributes:
        title: what a recipe's description calls it.
        gamma: the default weight; None for a method without a regulariser.
        terms: weight g and discrepancy d -> (maximised over x', loss at x, loss at x').
        reduction: of the discrepancy, in the Int family; None for the other methods, which do not
            use d.
        one_step: see `Method`.
        of_maps: makes d of an interpreter, or of None for the method's own, in methods of other
            papers that take one.
    """

    title: str
    gamma: float | None
    terms: Callable[[float, Objective], Terms]
    reduction: Reduction | None = None
    one_step: OneStep | None = None
    of_maps: Callable[[MakeInterpreter | None], Objective] | None = None


# The first eight are those of section 5 of the paper.
METHODS: dict[str, MethodRow] = {
    "normal": MethodRow("standard training", None, lambda g, d: (None, CE, None)),
    "adv": MethodRow("adversarial training", None, lambda g, d: (CE, None, CE)),
    "trades": MethodRow("TRADES", 1.0, lambda g, d: (TO_CLEAN, CE, g * TO_CLEAN)),
    "ig-norm": MethodRow("IG-Norm", 1.0, lambda g, d: (R, CE, g * R)),
    "ig-norm-sum": MethodRow(
        "IG-Norm with adversarial loss", 1.0, lambda g, d: (CE + g * R, None, CE + g * R)
    ),
    "int": MethodRow(
        "interpretability-aware training", 0.01, lambda g, d: (d, CE, g * d), "weighted"
    ),
    "int-1-class": MethodRow(
        "Int with the true class's map alone", 0.01, lambda g, d: (d, CE, g * d), "1-class"
    ),
    "int-adv": MethodRow(
        "Int with adversarial loss", 0.01, lambda g, d: (CE + g * d, None, CE + g * d), "weighted"
    ),
    "mart": MethodRow(
        "MART", 5.0, lambda g, d: (CE, None, BoostedCrossEntropy() + g * DoubtfulKL())
    ),
    "fast-at": MethodRow(
        "Fast-AT, one step", None, lambda g, d: (CE, None, CE), one_step=OneStep(1.0, 1.25, True)
    ),
    "n-fgsm": MethodRow(
        "N-FGSM, one step", None, lambda g, d: (CE, None, CE), one_step=OneStep(2.0, 1.0, False)
    ),
    "aat": MethodRow(
        "attributional training (FAR)", 1.0, lambda g, d: (d, CE, g * d), of_maps=correlation
    ),
    "adv-aat": MethodRow(
        "adversarial attributional training (FAR)",
        1.0,
        lambda g, d: (CE + g * d, None, CE + g * d),
        of_maps=correlation,
    ),
    "input-gradient": MethodRow(
        "input-gradient regularisation", 1.0, lambda g, d: (None, CE + g * InputGradient(), None)
    ),
    "r2et": MethodRow(
        "stable ranking of the top k (R2ET)",
        0.1,
        lambda g, d: (None, CE + g * d, None),
        of_maps=RankingPenalty,
    ),
}
INT_FAMILY = tuple(name for name, row in METHODS.items() if row.reduction is not None)
OF_MAPS = tuple(name for name, row in METHODS.items() if row.of_maps is not None)


def method(
    name: str,
    gamma: float | None = None,
    *,
    inner: Inner = "discrepancy",
    interpreter: MakeInterpreter | None = None,
) -> Method:
    """Look up a method by name.

    Args:
        name: one of `METHODS`.
        gamma: weight of the regulariser, in the units of the paper's 0.01 for the Int family (see
            `IntTrainer`); None takes the method's default.
        inner: for the Int family alone; see `IntTrainer`.
        interpreter: for the Int family, FAR (aat, adv-aat) and r2et; see `IntTrainer`.

    Raises:
        InputError: there is no such method, gamma is negative or NaN or the method has no
            regulariser, or the method does not have the option.
    """
    row = METHODS[require_known_name("training method", name, METHODS)]
    weight = row.gamma
    if gamma is not None:
        if row.gamma is None:
            raise InputError(f"The method {name!r} has no regulariser to weigh; leave gamma out.")
        weight = require_nonnegative("gamma", gamma)
    _require_options(name, inner, interpreter)
    options = {}
    reduction = row.reduction or "weighted"
    d: Objective = Discrepancy(reduction, units="release")
    if row.of_maps is not None:
        d = row.of_maps(interpreter)
        if interpreter is not None:
            options["interpreter"] = getattr(interpreter, "__qualname__", repr(interpreter))
    elif interpreter is not None and interpreter is not CAM:
        d = MapDiscrepancy(interpreter, reduction, units="release")
        options["interpreter"] = getattr(interpreter, "__qualname__", repr(interpreter))
    maximised, on_clean, on_adv = row.terms(0.0 if weight is None else weight, d)
    if inner == "cross-entropy":
        maximised = CE
        options["inner"] = inner
    return Method(name, weight, maximised, on_clean, on_adv, row.one_step, options)


def _require_options(name: str, inner: str, interpreter: object) -> None:
    require_one_of("inner", inner, get_args(Inner))
    if name in OF_MAPS and inner != "discrepancy":
        raise InputError(f"The method {name!r} takes no inner; leave it out.")
    known = (*INT_FAMILY, *OF_MAPS)
    if name not in known and (inner != "discrepancy" or interpreter is not None):
        raise InputError(
            f"The method {name!r} takes no inner and no interpreter; only {', '.join(known)} do."
        )
    instance = isinstance(interpreter, Interpreter) and not isinstance(interpreter, type)
    if interpreter is not None and (instance or not callable(interpreter)):
        raise InputError(
            "interpreter must be a function that makes one from the model, such as "
            "fastinterp.interpreters.GradCAM itself, got "
            f"{'an instance of ' if instance else ''}{type(interpreter).__name__}."
        )
    if interpreter is Repr:
        raise InputError(
            "interpreter must have a map for each class, which eq. (8) weighs, and Repr has none; "
            "take another."
        )
