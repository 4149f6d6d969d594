"""What Square tries next, in each norm (Andriushchenko et al., 2020; l1: Croce and Hein, 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .seeds import draw_bits, draw_integers
from .threats import L1Ball, per_image, rows_of


class Proposal(Protocol):
    """Images that change one part of the best ones so far."""

    def propose(self, x_best: Tensor, query: int, area: float) -> Tensor:
        """x_best [N, C, H, W] -> images to try. The first query starts the search at x."""
        ...

    def rows(self, index: Tensor) -> Proposal: ...


class LinfProposal:
    """A square in which every channel is at x + eps or x - eps. At first: vertical stripes."""

    def __init__(
        self, x: Tensor, eps: float | Tensor, lower: float, upper: float, seeds: Tensor
    ) -> None:
        radius = per_image(eps, x)
        self.low, self.high = (x - radius).clamp_(lower), (x + radius).clamp_(max=upper)
        self.seeds = seeds

    def propose(self, x_best: Tensor, query: int, area: float) -> Tensor:
        n, channels, height, width = x_best.shape
        if query == 1:
            up = _signs(self.seeds, query, channels * width).view(n, channels, 1, width)
            return torch.where(up, self.high, self.low)
        side = min(max(round(area**0.5), 1), height, width)
        up = _signs(self.seeds, 2 * query, channels).view(n, channels, 1, 1)
        window = _windows(self.seeds, 2 * query + 1, side, height, width)
        return torch.where(window, torch.where(up, self.high, self.low), x_best)

    def rows(self, index: Tensor) -> LinfProposal:
        rest = object.__new__(LinfProposal)
        rest.low, rest.high, rest.seeds = self.low[index], self.high[index], self.seeds[index]
        return rest


class LpProposal:
    """A bump of one sign in one square, paid for by what another square gives up; p = 1 or 2.

    At first: bumps on a grid of squares.
    """

    def __init__(
        self, x: Tensor, eps: float | Tensor, lower: float, upper: float, seeds: Tensor, p: int
    ) -> None:
        self.x, self.eps, self.seeds, self.p = x, eps, seeds, p
        self.lower, self.upper = lower, upper

    def propose(self, x_best: Tensor, query: int, area: float) -> Tensor:
        if query == 1:
            return self._into_ball(self._grid())
        n, channels, height, width = x_best.shape
        side = min(max(round(area**0.5), 3) | 1, height, width)
        delta = x_best - self.x
        one = _windows(self.seeds, 4 * query, side, height, width)
        two = _windows(self.seeds, 4 * query + 1, side, height, width)
        inside = torch.where(one, delta, 0)
        share = self._norm(inside)
        free = self._norm(torch.where(one | two, delta, 0)) ** self.p
        left = (per_image(self.eps, self.x) ** self.p - self._norm(delta) ** self.p).clamp(min=0)
        # The budget of a channel: what both squares held, and a part of what nobody holds.
        budget = (free + left / channels) ** (1 / self.p)
        signs = _signs(self.seeds, 4 * query + 2, channels).view(n, channels, 1, 1)
        turned = _signs(self.seeds, 4 * query + 3, 1).view(n, 1, 1, 1)
        bump = _place(self.seeds, 4 * query, _bump(side, self.x), turned, (height, width))
        bump = torch.where(signs, bump, -bump) + inside / share.clamp(min=1e-12)
        bump = bump * (budget / self._norm(bump).clamp(min=1e-12))
        return self._into_ball(torch.where(one, bump, torch.where(two, 0, delta)))

    def rows(self, index: Tensor) -> LpProposal:
        eps = rows_of(self.eps, index)
        return LpProposal(
            self.x[index], eps, self.lower, self.upper, self.seeds[index], self.p
        )

    def _norm(self, delta: Tensor) -> Tensor:
        """Each channel's norm together with the others: [N, 1, 1, 1]."""
        norm: Tensor = torch.linalg.vector_norm(delta, self.p, dim=(1, 2, 3), keepdim=True)
        return norm

    def _grid(self) -> Tensor:
        n, channels, height, width = self.x.shape
        side = max(min(height, width) // 5, 1)
        tall, wide = height // side, width // side
        flat = _bump(side, self.x)
        signs = _signs(self.seeds, 1, channels * tall * wide).view(n, channels, tall, wide)
        grid = torch.where(signs, 1.0, -1.0).to(self.x.dtype)
        blocks = torch.kron(grid, flat)
        delta = torch.zeros_like(self.x)
        delta[:, :, : tall * side, : wide * side] = blocks
        return delta

    def _into_ball(self, delta: Tensor) -> Tensor:
        """Scaled to length eps, then into the range of pixels."""
        eps = per_image(self.eps, self.x)
        delta = delta * (eps / self._norm(delta).clamp(min=1e-12))
        x_new = (self.x + delta).clamp(self.lower, self.upper)
        if self.p == 1:
            x_new = L1Ball(self.eps, 0.0, self.lower, self.upper).project(self.x, x_new)
        return x_new


def _signs(seeds: Tensor, counter: int, count: int) -> Tensor:
    """bool [N, count]."""
    return draw_bits(seeds, counter, count) < 0


def _corner(seeds: Tensor, counter: int, side: int, height: int, width: int) -> list[Tensor]:
    """The first row and column of a square, [N, 1] each.

    The last ones possible are left out, as in the authors' program: it made the l2 search better.
    """
    sizes = (max(height - side, 1), max(width - side, 1))
    return [draw_integers(seeds, counter, 2, size)[:, i : i + 1] for i, size in enumerate(sizes)]


def _windows(seeds: Tensor, counter: int, side: int, height: int, width: int) -> Tensor:
    """A square for each image: bool [N, 1, H, W]."""
    top, left = _corner(seeds, counter, side, height, width)
    down = torch.arange(height, device=seeds.device) - top  # [N, H]
    right = torch.arange(width, device=seeds.device) - left
    rows, columns = (down >= 0) & (down < side), (right >= 0) & (right < side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _place(
    seeds: Tensor, counter: int, bump: Tensor, turned: Tensor, size: tuple[int, int]
) -> Tensor:
    """The bump [side, side], turned or not, in the square of each image: [N, 1, H, W]."""
    height, width = size
    side = len(bump)
    top, left = _corner(seeds, counter, side, height, width)
    down = torch.arange(height, device=seeds.device) - top
    right = torch.arange(width, device=seeds.device) - left
    inside = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None]
    row, column = down.clamp(0, side - 1)[:, :, None], right.clamp(0, side - 1)[:, None, :]
    placed = torch.where(turned[:, 0], bump[column, row], bump[row, column])
    return (placed * inside)[:, None]


def _bump(side: int, like: Tensor) -> Tensor:
    """[side, side] of length 1: two halves of opposite sign, each highest in its middle."""
    half = side // 2
    bump = torch.cat([_hill(half, side), -_hill(side - half, side)])
    return (bump / bump.norm()).to(like)


def _hill(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle, each adding 1 / k^2: [height, width]."""
    hill = torch.zeros(height, width, dtype=torch.float64)
    top, left = height // 2, width // 2
    for k in range(max(height // 2, width // 2) + 1):
        rows = slice(max(top - k, 0), min(top + k + 1, height))
        columns = slice(max(left - k, 0), min(left + k + 1, width))
        hill[rows, columns] += 1 / (k + 1) ** 2
    return hill / hill.norm() if height else hill


PROPOSALS: dict[str, Callable[..., Proposal]] = {
    "linf": LinfProposal,
    "l2": lambda *words: LpProposal(*words, p=2),
    "l1": lambda *words: LpProposal(*words, p=1),
}
