"""Where the derivative of an objective begins: shorter ways than its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .outputs import Outputs

Value = Callable[[Outputs], Tensor]
Slopes = list[tuple[Tensor, Tensor]]


@runtime_checkable
class SlopedValue(Protocol):
    """A `Value` that knows its derivative by some tensor of the pass at x'.

    An ascent that does not look at values then starts its backward pass there.
    """

    def __call__(self, adv: Outputs) -> Tensor:
        """Outputs at x' -> [N]."""
        ...

    def slopes(self, adv: Outputs) -> Slopes:
        """Pairs (tensor of the pass, d value / d tensor): their chain rules to x' add up."""
        ...


def slopes_of(value: Value, adv: Outputs) -> Slopes:
    """The slopes of any value: its own, or itself with slope 1."""
    if isinstance(value, SlopedValue):
        return value.slopes(adv)
    values = value(adv)
    return [(values, torch.ones_like(values))]


class SumValue:
    """A sum of values."""

    def __init__(self, terms: Sequence[Value]) -> None:
        self.terms = terms

    def __call__(self, adv: Outputs) -> Tensor:
        total = self.terms[0](adv)
        for other in self.terms[1:]:
            total = total + other(adv)
        return total

    def slopes(self, adv: Outputs) -> Slopes:
        return [slope for term in self.terms for slope in slopes_of(term, adv)]


class ScaledValue:
    """A value times a number, or times one for each image [N]."""

    def __init__(self, term: Value, weight: float | Tensor) -> None:
        self.term, self.weight = term, weight

    def __call__(self, adv: Outputs) -> Tensor:
        return self.weight * self.term(adv)

    def slopes(self, adv: Outputs) -> Slopes:
        return [(tensor, self._times(slope)) for tensor, slope in slopes_of(self.term, adv)]

    def _times(self, slope: Tensor) -> Tensor:
        """slope [N, ...] times the weight."""
        if isinstance(self.weight, Tensor) and self.weight.dim() == 1:
            return self.weight.view(-1, *[1] * (slope.dim() - 1)) * slope
        return self.weight * slope
