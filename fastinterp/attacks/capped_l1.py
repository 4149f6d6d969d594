"""The nearest point of an l1 ball whose coordinates have bounds of their own."""

from __future__ import annotations

import torch
from torch import Tensor


def project_l1_capped(delta: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """Rows delta [N, d] -> the nearest rows with l1 norm at most eps and |entry| at most room.

    The nearest row is sign(delta) * min(max(|delta| - t, 0), room) for the least t >= 0 with which
    its norm is at most eps. As t grows, an entry falls between t = |delta| - room and t = |delta|;
    between two of these 2d numbers the norm is linear in t, so sorting them gives t exactly.

    Args:
        delta: [N, d].
        room: [N, d], at least 0.
        eps: a number, or a tensor [N, 1].
    """
    size = delta.abs()
    capped = torch.minimum(size, room)
    norm = capped.sum(dim=1, keepdim=True)  # [N, 1], at t = 0
    at, order = torch.cat([size - capped, size], dim=1).sort(dim=1)  # [N, 2d]
    starts = order < delta.shape[1]
    falling = (2 * starts.to(delta.dtype) - 1).cumsum(dim=1)  # entries that fall after at[:, k]
    fallen = (at.diff(dim=1) * falling[:, :-1]).cumsum(dim=1)  # [N, 2d - 1]
    norms = norm - torch.cat([torch.zeros_like(norm), fallen], dim=1)  # at t = at[:, k]
    last = (norms > eps).sum(dim=1, keepdim=True).clamp(min=1) - 1  # t lies behind at[:, last]
    excess = (norms.gather(1, last) - eps).clamp(min=0)
    t = at.gather(1, last) + excess / falling.gather(1, last).clamp(min=1)
    shrunk = torch.minimum((size - t).clamp(min=0), room)
    return torch.where(norm > eps, shrunk, capped).copysign(delta)
