"""Bisection of one number for each image, all images at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_count, require_nonnegative, require_number


@dataclass(frozen=True)
class Bisection:
    """A search for one number for each image, between `lower` and `upper`.

    The first value tried is `start`. Towards `upper` the next value is the middle of what is left,
    but at most twice the last one, so that a small `start` finds small answers in few rounds.

    Attributes:
        start: first value tried, in lower..upper.
        lower, upper: the range. Neither end is tried itself.
        rounds: values tried for an image, at most.
        tolerance: an image leaves the search once its range is at most this wide. With 0, the
            default and the protocol of the paper's tables, every image stays for all rounds.

    Raises:
        InputError: an empty range, a start outside it, rounds below 1 or a negative tolerance.
    """

    start: float
    lower: float = 0.0
    upper: float = 1.0
    rounds: int = 10
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("start", "lower", "upper"):
            require_number(f"Bisection: {name}", getattr(self, name))
        require_count("Bisection: rounds", self.rounds)
        require_nonnegative("Bisection: tolerance", self.tolerance)
        if not 0 <= self.lower < self.start < self.upper:
            raise InputError(
                "Bisection: 0 <= lower < start < upper is needed, "
                f"got {self.lower}, {self.start}, {self.upper}."
            )

    def search(
        self,
        succeeds: Callable[[Tensor, Tensor], Tensor],
        like: Tensor,
        wanted: Literal["smallest", "largest"],
    ) -> tuple[Tensor, Tensor]:
        """The smallest (largest) value found with which each image succeeds.

        Small values are expected to fail where the smallest is wanted, and to succeed where the
        largest is wanted; where that is not so, one of several boundaries is found.

        Args:
            succeeds: (rows [M] int64, values [M]) -> bool [M], for the images still searched.
            like: a tensor [N, ...] whose dtype and device the values take.

        Returns:
            (value [N], found bool [N]); where nothing succeeded, `value` is the end of the range.
        """
        low = like.new_full((len(like),), self.lower)
        high = like.new_full((len(like),), self.upper)
        value = like.new_full((len(like),), self.start)
        found = torch.zeros(len(like), dtype=torch.bool, device=like.device)
        rows = torch.arange(len(like), device=like.device)
        for _ in range(self.rounds):
            if len(rows) == 0:
                break
            tried = value[rows]
            success = succeeds(rows, tried)
            up = ~success if wanted == "smallest" else success
            low[rows] = torch.where(up, tried, low[rows])
            high[rows] = torch.where(up, high[rows], tried)
            middle = (low[rows] + high[rows]) / 2
            value[rows] = torch.where(up, torch.minimum(2 * tried, middle), middle)
            found[rows] |= success
            rows = rows[high[rows] - low[rows] > self.tolerance]
        return (high if wanted == "smallest" else low), found
