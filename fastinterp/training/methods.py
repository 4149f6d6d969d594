"""The eight training methods: what the inner loop climbs, and what the outer step descends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from ..attacks import KL, CrossEntropy, Discrepancy, IGNorm, Objective, Outputs
from ..errors import InputError


@dataclass(frozen=True)
class Method:
    """A row of the table below, with its weight filled in.

    Attributes:
        name: as in `METHODS`.
        gamma: weight of the regulariser, None where there is none.
        inner: maximised over x' in the ball; None: no x' is sought.
        on_clean: term of the outer loss at x, or None.
        on_adv: term of the outer loss at x', or None.
    """

    name: str
    gamma: float | None
    inner: Objective | None
    on_clean: Objective | None
    on_adv: Objective | None

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
D = Discrepancy("weighted", units="release")
D1 = Discrepancy("1-class", units="release")

Terms = tuple[Objective | None, Objective | None, Objective | None]

# name: (default gamma, gamma -> (maximised over x', loss at x, loss at x')); section 5 of the paper
METHODS: dict[str, tuple[float | None, Callable[[float], Terms]]] = {
    "normal": (None, lambda g: (None, CE, None)),
    "adv": (None, lambda g: (CE, None, CE)),
    "trades": (1.0, lambda g: (TO_CLEAN, CE, g * TO_CLEAN)),
    "ig-norm": (1.0, lambda g: (R, CE, g * R)),
    "ig-norm-sum": (1.0, lambda g: (CE + g * R, None, CE + g * R)),
    "int": (0.01, lambda g: (D, CE, g * D)),
    "int-1-class": (0.01, lambda g: (D1, CE, g * D1)),
    "int-adv": (0.01, lambda g: (CE + g * D, None, CE + g * D)),
}


def method(name: str, gamma: float | None = None) -> Method:
    """Look up a method by name.

    Args:
        name: one of `METHODS`.
        gamma: weight of the regulariser, in the units of the paper's 0.01 for the Int family (see
            `IntTrainer`); None takes the method's default.

    Raises:
        InputError: no such method, gamma negative or NaN, or gamma for a method without one.
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(METHODS)}."
        raise InputError(f"There is no training method {name!r}; {hint}")
    default, terms = METHODS[name]
    if default is None and gamma is not None:
        raise InputError(f"The method {name!r} has no regulariser to weigh; leave gamma out.")
    weight = default if gamma is None else gamma
    if weight is not None and not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"gamma must be a finite number >= 0, got {weight!r}.")
    inner, on_clean, on_adv = terms(0.0 if weight is None else weight)
    return Method(name, weight, inner, on_clean, on_adv)
