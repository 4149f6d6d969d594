"""The point of a box that lies on a hyperplane and is nearest to a given one, in any norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops.pgd_step import Norm

ORDER: dict[str, float] = {"linf": math.inf, "l2": 2, "l1": 1}


def step_to_hyperplane(
    point: Tensor, normal: Tensor, gain: Tensor, norm: Norm, lower: float, upper: float
) -> Tensor:
    """The shortest step with <normal, step> = gain that stays in [lower, upper].

    Every entry of the step has the sign that gains, and as much room as the range leaves it. In
    linf all move by the same length while they have room; in l2 in proportion to the normal; in l1
    those with the largest normal move first (Croce and Hein, 2020, section 2.2). All are found by
    sorting once.

    Args:
        point, normal: [M, d].
        gain: [M], of either sign.

    Returns:
        [M, d]; where the hyperplane does not meet the range, the step to the corner nearest to it.
    """
    normal = torch.where(gain[:, None] < 0, -normal, normal)
    gain = gain.abs()[:, None]
    size = normal.abs()
    room = torch.where(normal > 0, upper - point, point - lower).clamp(min=0)
    room = room.masked_fill(normal == 0, 0)
    if norm == "l1":
        size, order = size.sort(dim=1, descending=True)
        room = room.gather(1, order)
        before = (size * room).cumsum(dim=1) - size * room
        moved = torch.minimum(((gain - before) / size.clamp(min=_tiny(size))).clamp(min=0), room)
        return torch.zeros_like(moved).scatter(1, order, moved).copysign(normal)
    speed = torch.ones_like(size) if norm == "linf" else size
    order = (room / speed.clamp(min=_tiny(size))).argsort(
        dim=1, descending=True
    )  # by when they end
    # With the first k of these still moving at time t, the gain is at most
    # held_k + t * rate_k, and exactly that for one k: so t is the largest of these quotients.
    rate = (size * speed).gather(1, order).cumsum(dim=1)
    gained = size * room
    held = gained.sum(dim=1, keepdim=True) - gained.gather(1, order).cumsum(dim=1)
    time = ((gain - held) / rate.clamp(min=_tiny(size))).amax(dim=1, keepdim=True)
    time = time.clamp(0, torch.finfo(size.dtype).max)  # finite, as some speeds are 0
    return torch.minimum(time * speed, room).copysign(normal)


def length(step: Tensor, norm: Norm) -> Tensor:
    """[M, ...] -> [M]."""
    size: Tensor = torch.linalg.vector_norm(step.flatten(1), ord=ORDER[norm], dim=1)
    return size


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
