"""Ascent in an l1 ball whose coordinates are bounded, by the method of Frank and Wolfe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..threats import L1Ball, per_image, require_radius, rows_of


@dataclass(frozen=True)
class CappedL1Ball:
    """All points z = (v, t) with ||v||_1 <= eps and every |v_j| <= cap; t counts the steps taken.

    A step goes 1 / (t + 1) of the way to a point of the l1 ball that lies along the gradient, so v
    is the mean of such points; the first step forgets the start. That point hands eps out to the
    largest entries of the gradient first, each getting what it lacks to the cap: the rule of Kang
    et al., under which a coordinate at the cap gets nothing and sinks back. With v = 0 it is the
    furthest point of the set along the gradient.

    The ball is centred at 0; the images that the threat is given say only how many coordinates
    there are.

    Attributes:
        eps: radius, a number or a tensor [N].
        cap: bound of each coordinate.
    """

    eps: float | Tensor
    cap: float

    def __post_init__(self) -> None:
        require_radius("eps", self.eps)
        require_radius("cap", self.cap)

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """x [N, d] -> z [N, d + 1], v zero or drawn uniformly from the l1 ball, then capped."""
        ball = L1Ball(self.eps, 0.0, -self.cap, self.cap)
        start = ball.init(torch.zeros_like(x), random_start, generator)
        return torch.cat([start, x.new_zeros(len(x), 1)], dim=1)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        point, taken = z[:, :-1], z[:, -1:]
        moved = point + (self._aim(point, grad[:, :-1]) - point) / (taken + 1)
        return torch.cat([moved.clamp(-self.cap, self.cap), taken + 1], dim=1)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        return z[:, :-1]

    def rows(self, index: Tensor) -> CappedL1Ball:
        return replace(self, eps=rows_of(self.eps, index))

    def _aim(self, point: Tensor, grad: Tensor) -> Tensor:
        """[N, d]: eps handed out along the gradient, largest entries first, as room allows."""
        sign = grad.sign()
        order = grad.abs().argsort(dim=1, descending=True)
        room = (self.cap - sign * point).gather(1, order)
        before = room.cumsum(dim=1) - room
        share = torch.minimum((per_image(self.eps, grad) - before).clamp(min=0), room)
        return torch.zeros_like(grad).scatter_(1, order, share) * sign
