"""The eight training methods: what the inner loop climbs, and what the outer step descends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_number
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
from ..interpreters import CAM, Interpreter, Repr
from ..models.gap import Needs, widest
from ..ops.discrepancy import Reduction

Inner = Literal["discrepancy", "cross-entropy"]


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table below, with its weight filled in.

    Attributes:
        name: as in `METHODS`.
        gamma: weight of the regulariser, None where there is none.
        inner: maximised over x' in the ball; None: no x' is sought.
        on_clean: term of the outer loss at x, or None.
        on_adv: term of the outer loss at x', or None.
        options: what was chosen beside the table's row, as a run's settings record it.
    """

    name: str
    gamma: float | None
    inner: Objective | None
    on_clean: Objective | None
    on_adv: Objective | None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        """What its objectives read of a pass; see `Objective`."""
        terms = (self.inner, self.on_clean, self.on_adv)
        return widest(term.needs for term in terms if term is not None)

    def loss(self, clean: Outputs, adv: Outputs | None, labels: Tensor) -> Tensor:
        """The outer loss per image, [N], with the outputs at x and x' as computed by the caller."""
        terms = []
        if self.on_clean is not None:
            terms.append(self.on_clean.prepare(clean, labels)(clean))
        if self.on_adv is not None and adv is not None:
            terms.append(self.on_adv.prepare(clean, labels)(adv))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]


CE = CrossEntropy()
TO_CLEAN = KL()
R = IGNorm(steps=5, units="release")

Terms = tuple[Objective | None, Objective | None, Objective | None]


class Row(NamedTuple):
    """A method, but for its weight and its discrepancy.

    Attributes:
        gamma: the weight where none is given; None: it weighs nothing.
        terms: weight g and discrepancy d -> (maximised over x', loss at x, loss at x').
        reduction: of the discrepancy, in the Int family; None: the method has none, and d is not
            to be used.
    """

    gamma: float | None
    terms: Callable[[float, Objective], Terms]
    reduction: Reduction | None = None


# Section 5 of the paper.
METHODS: dict[str, Row] = {
    "normal": Row(None, lambda g, d: (None, CE, None)),
    "adv": Row(None, lambda g, d: (CE, None, CE)),
    "trades": Row(1.0, lambda g, d: (TO_CLEAN, CE, g * TO_CLEAN)),
    "ig-norm": Row(1.0, lambda g, d: (R, CE, g * R)),
    "ig-norm-sum": Row(1.0, lambda g, d: (CE + g * R, None, CE + g * R)),
    "int": Row(0.01, lambda g, d: (d, CE, g * d), "weighted"),
    "int-1-class": Row(0.01, lambda g, d: (d, CE, g * d), "1-class"),
    "int-adv": Row(0.01, lambda g, d: (CE + g * d, None, CE + g * d), "weighted"),
}
INT_FAMILY = tuple(name for name, row in METHODS.items() if row.reduction is not None)


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
        inner, interpreter: for the Int family alone; see `IntTrainer`.

    Raises:
        InputError: no such method, gamma negative or NaN, gamma for a method without one, or an
            option that the method does not have.
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(METHODS)}."
        raise InputError(f"There is no training method {name!r}; {hint}")
    row = METHODS[name]
    weight = _weight(name, row.gamma, gamma)
    _require_options(name, inner, interpreter)
    options = {}
    reduction = row.reduction or "weighted"
    d: Objective = Discrepancy(reduction, units="release")
    if interpreter is not None and interpreter is not CAM:
        d = MapDiscrepancy(interpreter, reduction, units="release")
        options["interpreter"] = getattr(interpreter, "__qualname__", repr(interpreter))
    climbed, on_clean, on_adv = row.terms(0.0 if weight is None else weight, d)
    if inner == "cross-entropy":
        climbed = CE
        options["inner"] = inner
    return Method(name, weight, climbed, on_clean, on_adv, options)


def _weight(name: str, default: float | None, gamma: float | None) -> float | None:
    """The weight asked for, or the method's own."""
    if gamma is None:
        return default
    if default is None:
        raise InputError(f"The method {name!r} has no regulariser to weigh; leave gamma out.")
    weight = require_number("gamma", gamma)
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"gamma must be a finite number >= 0, got {weight!r}.")
    return weight


def _require_options(name: str, inner: str, interpreter: object) -> None:
    if inner not in get_args(Inner):
        raise InputError(f"inner must be one of {', '.join(get_args(Inner))}, got {inner!r}.")
    # Repr is callable as the others are, and an interpreter of some model is, too.
    made = isinstance(interpreter, Interpreter) and not isinstance(interpreter, type)
    if interpreter is not None and (made or not callable(interpreter)):
        raise InputError(
            "interpreter must be a function that makes one of the model, such as "
            "fastinterp.interpreters.GradCAM itself, got "
            f"{'one that is made, ' if made else ''}{type(interpreter).__name__}."
        )
    if interpreter is Repr:
        raise InputError(
            "interpreter must have a map for each class, which eq. (8) weighs, and Repr has none; "
            "take another."
        )
    if name not in INT_FAMILY and (inner != "discrepancy" or interpreter is not None):
        raise InputError(
            f"The method {name!r} takes no inner and no interpreter; only "
            f"{', '.join(INT_FAMILY)} do."
        )
