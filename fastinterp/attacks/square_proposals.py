"""Random squares: how Square starts, what it tries next and what it remembers, in each norm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .seeds import as_below, as_sign, draw
from .threats import L1Ball, per_image, rows_of

# p of Andriushchenko et al. (2020) is halved after so many of 10,000 queries.
SCHEDULED = 10_000
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
BLOCK = 64  # queries whose random numbers are drawn at once


def share_of_pixels(query: int, queries: int, p_init: float) -> float:
    """p, the share of the pixels in a square, with the paper's schedule scaled to `queries`."""
    at = query * SCHEDULED // queries
    return math.ldexp(p_init, -sum(at > end for end in HALVINGS))


class Proposals(ABC):
    """The best images of a batch so far, and random changes of them.

    Each image's numbers follow from its seed and the number of the query alone.

    Args:
        x: images [N, C, H, W].
        eps: radius, a number or a tensor [N].
        seeds: [N] int64, one for each image.
        queries, p_init: of the schedule of sides.
    """

    least_side = 1
    squares = 1  # in a query
    starts: int  # random numbers that the start needs
    each: int  # random numbers that a query needs: two for each square, and signs

    def __init__(
        self,
        x: Tensor,
        eps: float | Tensor,
        lower: float,
        upper: float,
        seeds: Tensor,
        queries: int,
        p_init: float,
    ) -> None:
        self.seeds, self.lower, self.upper = seeds, lower, upper
        self.channels, self.height, self.width = x.shape[1:]
        self.queries, self.p_init = queries, p_init
        self._first, self._inside = -BLOCK, dict[int, Tensor]()
        self._corners = self._signs = seeds  # until the first query that needs them
        self.prepare(x, eps)

    @abstractmethod
    def prepare(self, x: Tensor, eps: float | Tensor) -> None:
        """Set `starts`, `each` and what the norm needs."""

    @abstractmethod
    def start(self) -> Tensor:
        """The images [N, C, H, W] of the first query."""

    @abstractmethod
    def change(self, side: int, at: int) -> Tensor:
        """The best images, changed in squares of this side; `at` is the query's place in _draw."""

    @abstractmethod
    def accept(self, better: Tensor) -> None:
        """Make the images last proposed the best ones where `better`, bool [N]."""

    @abstractmethod
    def best(self) -> Tensor:
        """[N, C, H, W]."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with the images at `rows` [M] alone."""
        self.seeds = self.seeds[rows]
        self._corners, self._signs = self._corners[rows], self._signs[rows]

    def propose(self, query: int) -> Tensor:
        """The images [N, C, H, W] of query 0, 1, ..., in turn."""
        if query == 0:
            return self.start()
        if not self._first <= query < self._first + BLOCK:
            self._draw(query)
        return self.change(self._sides[query - self._first], query - self._first)

    def _draw(self, first: int) -> None:
        """Draw what the next queries need: corners [N, B] of squares, and signs [N, B, ...]."""
        self._first = first
        bits = draw(self.seeds, self.starts + first * self.each, BLOCK * self.each)
        bits = bits.view(-1, BLOCK, self.each)
        self._sides = [self.side(query) for query in range(first, first + BLOCK)]
        side = torch.tensor(self._sides, device=bits.device)
        rows, columns = (
            as_below(bits[:, :, k : 2 * self.squares : 2], self.corners(length - side)[:, None])
            for k, length in enumerate((self.height, self.width))
        )
        self._corners = rows * self.width + columns  # [N, B, squares], in the flat image
        self._signs = as_sign(bits[:, :, 2 * self.squares :])

    def corners(self, longest: Tensor) -> Tensor:
        """How many rows, or columns, a square may begin at; `longest` is the last of them."""
        return longest + 1

    def side(self, query: int) -> int:
        """The side of the squares of a query."""
        share = share_of_pixels(query, self.queries, self.p_init)
        side = max(round(math.sqrt(share * self.height * self.width)), self.least_side)
        return min(side, self.height, self.width)

    def places(self, at: int, square: int, side: int) -> Tensor:
        """The places [N, C, side^2] of a square's pixels in the flat image."""
        if side not in self._inside:
            along = torch.arange(side, device=self.seeds.device)
            self._inside[side] = (along[:, None] * self.width + along).flatten()
        places = self._corners[:, at, square, None] + self._inside[side]
        return places[:, None].expand(-1, self.channels, -1)


class LinfProposals(Proposals):
    """Every pixel lies at one of the two ends of its range; a square moves to one of them.

    A square that would change nothing takes the opposite signs: no query is wasted. Only squares
    are read and written, so that a query costs little beside the network's pass.
    """

    def prepare(self, x: Tensor, eps: float | Tensor) -> None:
        self.starts, self.each = self.channels * self.width, 2 + self.channels
        self.tried: tuple[Tensor, Tensor, Tensor] | None = None  # places, old and new values
        radius = per_image(eps, x)
        self.low = (x - radius).clamp(min=self.lower).contiguous()
        self.high = (x + radius).clamp(max=self.upper).contiguous()

    def start(self) -> Tensor:
        """Stripes from top to bottom, each of a random sign."""
        signs = as_sign(draw(self.seeds, 0, self.starts)).view(-1, self.channels, 1, self.width)
        self.adv = torch.where(signs, self.high, self.low)
        self.tried = None
        return self.adv.clone()

    def change(self, side: int, at: int) -> Tensor:
        places, signs = self.places(at, 0, side), self._signs[:, at, :, None]
        adv, low, high = (image.flatten(2) for image in (self.adv, self.low, self.high))
        old, ends = adv.gather(2, places), (high.gather(2, places), low.gather(2, places))
        idle = (torch.where(signs, *ends) == old).flatten(1).all(dim=1)
        new = torch.where(signs ^ idle[:, None, None], *ends)
        adv.scatter_(2, places, new)
        self.tried = places, old, new
        return self.adv.clone()

    def accept(self, better: Tensor) -> None:
        if self.tried is not None:
            places, old, new = self.tried
            values = torch.where(better[:, None, None], new, old)
            self.adv.flatten(2).scatter_(2, places, values)

    def best(self) -> Tensor:
        return self.adv

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.low, self.high, self.adv = self.low[rows], self.high[rows], self.adv[rows]


class L2Proposals(Proposals):
    """The perturbation always has length eps before it is clipped; a square takes it from another.

    Algorithm 3 of the paper: what one square holds, and what clipping took away, goes into another
    square as a pyramid and its negative, added to what was there.
    """

    least_side = 3
    squares = 2
    order = 2  # of the norm
    power = 2  # of the pyramids

    def prepare(self, x: Tensor, eps: float | Tensor) -> None:
        self.tile = max(min(self.height, self.width) // 5, 1)
        self.tiles = self.height // self.tile, self.width // self.tile
        self.starts = math.prod(self.tiles) * (1 + self.channels)
        self.each = 5 + self.channels
        self.x = self.adv = x
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self.eps = eps.to(x) if isinstance(eps, Tensor) else eps

    def start(self) -> Tensor:
        """Tiles of pyramids with random signs and directions."""
        (rows, columns), side, channels = self.tiles, self.tile, self.channels
        bits = as_sign(draw(self.seeds, 0, self.starts)).view(-1, rows, columns, 1 + channels)
        pair = pyramids(side, self.x, self.order, self.power)
        turned = torch.where(bits[..., :1, None, None], pair, pair.t())
        tiles = torch.where(bits[..., 1:, None, None], turned, -turned)
        delta = torch.zeros_like(self.x)
        top, left = (self.height - rows * side) // 2, (self.width - columns * side) // 2
        inner = delta[:, :, top : top + rows * side, left : left + columns * side]
        inner.copy_(tiles.permute(0, 3, 1, 4, 2, 5).reshape(inner.shape))
        return self._render(delta)

    def corners(self, longest: Tensor) -> Tensor:
        # The authors' program leaves the last row and column out, and finds more images so.
        return longest.clamp(min=1)

    def side(self, query: int) -> int:
        side = super().side(query)
        return min(side + (side + 1) % 2, self.height, self.width)  # odd

    def change(self, side: int, at: int) -> Tensor:
        delta = (self.adv - self.x).flatten(2)  # [N, C, P]
        goal, source = self.places(at, 0, side), self.places(at, 1, side)
        if side not in self.pairs:
            pair = pyramids(side, delta, self.order, self.power)
            self.pairs[side] = pair.flatten(), pair.t().flatten()
        turn, signs = self._signs[:, at, :1], self._signs[:, at, 1:]
        turned = torch.where(turn, *self.pairs[side])[:, None]
        new = torch.where(signs[:, :, None], turned, -turned) + self._unit(delta.gather(2, goal))
        total = self._sum(delta).sum(dim=1, keepdim=True)
        held = self._sum(delta.gather(2, source))
        delta.scatter_(2, source, 0.0)
        held = held + self._sum(delta.gather(2, goal))  # pixels in both squares count once
        delta.scatter_(2, goal, self._budget(total, held) * self._unit(new))
        return self._render(delta.view_as(self.x))

    def _sum(self, delta: Tensor) -> Tensor:
        """[N, C, P] -> [N, C, 1], the sums whose root of `order` is the norm."""
        return (delta.square() if self.order == 2 else delta.abs()).sum(dim=2, keepdim=True)

    def _unit(self, delta: Tensor) -> Tensor:
        """[N, C, P], each channel divided by its norm."""
        size = self._sum(delta)
        return delta / (size.sqrt() if self.order == 2 else size).clamp(min=1e-12)

    def _budget(self, total: Tensor, held: Tensor) -> Tensor:
        """What a channel's new square gets, [N, C, 1].

        Args:
            total: sums of the perturbations, [N, 1, 1].
            held: sums of what the two squares hold, [N, C, 1].
        """
        spare = (self._radius(total) ** 2 - total).clamp(min=0)
        budget: Tensor = (spare / self.channels + held).sqrt()
        return budget

    def _render(self, delta: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
        moved = self.x + delta * (self._radius(delta) / length.clamp(min=1e-12))
        self.proposed = moved.clamp(self.lower, self.upper)
        return self.proposed.clone()

    def _radius(self, like: Tensor) -> Tensor | float:
        return per_image(self.eps, like)

    def accept(self, better: Tensor) -> None:
        self.adv = torch.where(better[:, None, None, None], self.proposed, self.adv)

    def best(self) -> Tensor:
        return self.adv

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.x, self.adv, self.eps = self.x[rows], self.adv[rows], rows_of(self.eps, rows)


class L1Proposals(L2Proposals):
    """The same in l1 (Croce and Hein, 2021): narrower pyramids, and the exact projection.

    Where that shortens a perturbation, its small entries vanish, so that it is sparse.
    """

    order = 1
    power = 4

    def _budget(self, total: Tensor, held: Tensor) -> Tensor:
        return (self._radius(total) - total).clamp(min=0) + self.channels * held

    def _render(self, delta: Tensor) -> Tensor:
        ball = L1Ball(self.eps, 0.0, self.lower, self.upper)
        self.proposed = ball.project(self.x, self.x + delta)
        return self.proposed.clone()


def pyramids(side: int, like: Tensor, order: int, power: int) -> Tensor:
    """[side, side] of l_order norm 1: a pyramid in the upper half, a negative one in the lower.

    A pyramid falls from its middle as the sums of 1 / j^power do, j being the distance from it.
    """
    halves = [_pyramid(height, side, like, power) for height in (side // 2, side - side // 2)]
    upper, lower = (half / half.norm(p=order).clamp(min=1e-12) for half in halves)
    both = torch.cat([upper, -lower])
    size: Tensor = torch.linalg.vector_norm(both, ord=order)
    return both / size


def _pyramid(height: int, width: int, like: Tensor, power: int) -> Tensor:
    rows, columns = ((torch.arange(n, device=like.device) - n // 2).abs() for n in (height, width))
    distance = torch.maximum(rows[:, None], columns)
    end = max(height, width) // 2 + 1
    parts = torch.arange(1, end + 1, device=like.device).to(like) ** -power
    sums = parts.flip(0).cumsum(0).flip(0)  # from j on
    return sums[distance]
