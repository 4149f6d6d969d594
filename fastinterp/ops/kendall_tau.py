"""Kendall's tau-b, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from .._utils.errors import InputError
from . import _backend
from ._validate import require_like, require_tensor, shape_of


# 1. Reference
def reference(a: Tensor, b: Tensor) -> Tensor:
    """Plain torch: a, b [N, M] -> tau-b [N], float64."""
    count, length = a.shape
    pairs = length * (length - 1) // 2
    if count == 0 or pairs == 0:
        return a.new_full((count,), torch.nan, dtype=torch.float64)
    by_b = b.argsort(dim=1, stable=True)
    order = by_b.gather(1, a.gather(1, by_b).argsort(dim=1, stable=True))  # by a, then by b
    a, b = _ranks(a.gather(1, order)), _ranks_of_any(b.gather(1, order))
    tied_a, tied_b = _tied_pairs(a), _tied_pairs(b.sort(dim=1).values)
    tied_both = _tied_pairs(a * length + b)
    agreement = pairs - tied_a - tied_b + tied_both - 2 * _exchanges(b)
    tau = agreement.double() / (pairs - tied_a).double().sqrt() / (pairs - tied_b).double().sqrt()
    defined = (tied_a < pairs) & (tied_b < pairs)
    return torch.where(defined, tau.clamp(-1, 1), torch.nan)


def _ranks(ordered: Tensor) -> Tensor:
    """Rows in ascending order -> dense ranks, int64."""
    steps = torch.zeros_like(ordered, dtype=torch.int64)
    steps[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return steps.cumsum(dim=1)


def _ranks_of_any(values: Tensor) -> Tensor:
    ordered, order = values.sort(dim=1)
    return torch.empty_like(order).scatter_(1, order, _ranks(ordered))


def _tied_pairs(grouped: Tensor) -> Tensor:
    """Rows whose equal entries are neighbours -> pairs of equal entries, [N]."""
    # An entry that starts a run of ties leads none; the i-th after it is tied with i before it.
    length = grouped.shape[1]
    places = torch.arange(length, device=grouped.device)
    starts = torch.ones_like(grouped, dtype=torch.bool)
    starts[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    run_start = torch.where(starts, places, 0).cummax(dim=1).values
    return (places - run_start).sum(dim=1)


def _exchanges(ranks: Tensor) -> Tensor:
    """Pairs of each row that stand in descending order, by merging sorted halves, [N]."""
    count, length = ranks.shape
    whole = 1 << max(0, length - 1).bit_length()
    padded = torch.nn.functional.pad(ranks, (0, whole - length), value=length)
    total = ranks.new_zeros(count)
    width = 1
    while width < whole:
        halves = padded.view(count, -1, 2, width)
        left, right = halves[:, :, 0].contiguous(), halves[:, :, 1].contiguous()
        not_greater = torch.searchsorted(left, right, right=True)
        total += (width - not_greater).sum(dim=(1, 2))
        padded = halves.flatten(2).sort(dim=2).values.view(count, -1)
        width *= 2
    return total


# 2. Fake
def _fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[0],), dtype=torch.float64)


# 3. Autograd: none. The coefficient counts pairs and is constant almost everywhere.


# 4. Backends
def register() -> None:
    """Attach the Python halves to the compiled op. Called once, when the extension has loaded."""
    torch.library.register_fake("fastinterp::kendall_tau", _fake)


# 5. Public
@torch.no_grad()
def kendall_tau(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's rank correlation tau-b of each row of `a` with the same row of `b`.

    Ties are handled as in `scipy.stats.kendalltau`. Pairs are counted in integers, so the result
    is exact but for its last division. O(M log M) a row on the CPU; on a GPU rows of up to 8192
    entries compare all pairs, longer ones are counted on the CPU. Not differentiable.

    Args:
        a: [N, M], floating point.
        b: [N, M], same dtype and device.

    Returns:
        tau-b [N], float64, in [-1, 1]; NaN for a row with M < 2, that is constant, or holds a NaN.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    op = "kendall_tau"
    require_tensor(op, "a", a)
    require_like(op, "a", a, "b", require_tensor(op, "b", b))
    if a.dim() != 2:
        raise InputError(
            f"{op}: a and b must have shape [N, M], got {shape_of(a)}; flatten maps first."
        )
    if _backend.is_native(a):
        return torch.ops.fastinterp.kendall_tau(a, b)  # type: ignore[no-any-return]
    tau = reference(a, b)
    return torch.where((a.isnan() | b.isnan()).any(dim=1), torch.nan, tau)
