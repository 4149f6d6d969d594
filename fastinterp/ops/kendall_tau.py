"""Kendall's tau-b, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _backend
from ._validate import are_alike, mismatch


# 1. Reference
def reference(a: Tensor, b: Tensor) -> Tensor:
    """Plain torch: a, b [N, M] without NaN -> tau-b [N], float64."""
    count, length = a.shape
    pairs = length * (length - 1) // 2
    if count == 0 or pairs == 0:
        return a.new_full((count,), torch.nan, dtype=torch.float64)
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    by_both = (ranks_a * length + ranks_b).sort(dim=1).values  # ordered by a, then by b
    # The ranks of a row sum up to its pairs of unequal entries.
    untied_a, untied_b, untied = (ranks.sum(dim=1) for ranks in (ranks_a, ranks_b, _ranks(by_both)))
    agreement = untied_a + untied_b - untied - 2 * _inversions(by_both % length)
    tau = agreement.double() / untied_a.double().sqrt() / untied_b.double().sqrt()
    return tau.clamp(-1, 1)  # 0 / 0 is NaN where a row is constant


def _ranks(values: Tensor) -> Tensor:
    """For each entry the number of smaller ones in its row, [N, M]."""
    return torch.searchsorted(values.sort(dim=1).values, values.contiguous())


def _inversions(ranks: Tensor) -> Tensor:
    """Pairs of each row in descending order, [N], counted while sorted halves are merged."""
    count, length = ranks.shape
    whole = 1 << (length - 1).bit_length()
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


# 4. Backend: kernels in C++ and CUDA; plain torch where they were not built.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::kendall_tau", _fake)


# 5. Public
@torch.no_grad()
def kendall_tau(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's rank correlation tau-b of each row of `a` with the same row of `b`.

    Ties are handled as in `scipy.stats.kendalltau`. Pairs are counted in integers, so only the
    last divisions round. O(M log M) a row on the CPU; on a GPU all pairs of rows of up to 8192
    entries are compared, and longer rows are counted on the CPU. Not differentiable.

    Args:
        a: [N, M], floating point.
        b: [N, M], same dtype and device.

    Returns:
        tau-b [N], float64, in [-1, 1]; NaN for a row with M < 2, that is constant, or holds a NaN.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    if not (are_alike(a, b) and a.dim() == 2 and a.shape == b.shape):
        raise mismatch(
            "kendall_tau",
            "a and b [N, M], of one floating-point dtype and on one device (flatten maps first)",
            a=a,
            b=b,
        )
    if _backend.is_native(a):
        return torch.ops.fastinterp.kendall_tau(a, b)  # type: ignore[no-any-return]
    tau = reference(a, b)
    return torch.where((a.isnan() | b.isnan()).any(dim=1), torch.nan, tau)
