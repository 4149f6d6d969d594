"""Which positions two maps show brightest: the share they have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from .._utils.errors import InputError


@torch.no_grad()
def topk_intersection(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Share of the k largest positions that two maps have in common (Ghorbani et al., 2019).

    Among equal values the first positions count as the larger ones.

    Args:
        a, b: maps [N, ...], compared row by row; all dimensions but the first are positions.
        k: how many positions, from 1 to all of a map.

    Returns:
        Share [N] in [0, 1], float64; NaN for a row that holds a NaN.

    Raises:
        InputError: shapes or devices differ, or k is not a number of positions.
    """
    if a.dim() < 2 or a.shape != b.shape or a.device != b.device:
        raise InputError(
            "topk_intersection: a and b must be maps [N, ...] of one shape on one device, "
            f"got {list(a.shape)} on {a.device} and {list(b.shape)} on {b.device}."
        )
    a, b = a.flatten(1), b.flatten(1)
    positions = a.shape[1]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= positions:
        raise InputError(
            f"topk_intersection: k must be an integer from 1 to {positions}, "
            f"the positions of a map, got {k!r}."
        )
    common = (_largest(a, k) & _largest(b, k)).sum(dim=1).double() / k
    return torch.where((a.isnan() | b.isnan()).any(dim=1), torch.nan, common)


def _largest(values: Tensor, k: int) -> Tensor:
    """[N, M] -> bool [N, M], True at the k largest of each row."""
    order = values.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order[:, :k], True)
