"""How far a step of the ascent goes: always as far, or as Croce and Hein's APGD chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .._utils.errors import InputError
from .threats import Ball, Movable, Threat, movable, rows_of

AnyClimb = TypeVar("AnyClimb", bound="_Adaptive")

MOMENTUM = 0.75  # share of the new step in each move; the rest repeats the last move
RISES = 0.75  # of the steps since the last checkpoint must have increased the value
SPARSITY = 0.2  # share of the pixels that the first sparse steps move
SPARSER_BY = 0.95  # an image counts as sparser than before with fewer moved pixels than this share
SPARSER = 1.5  # the step moves so many times fewer pixels than the best image has moved
SHRINK, LEAST = 1.5, 0.1  # how a sparse step is shortened, and its least length over eps


class Climber(Protocol):
    """How far the steps of `ascend` go."""

    def start(self, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Climb:
        """The climb of a batch x [N, ...] that starts at z and takes `steps` steps."""
        ...


class Climb(Protocol):
    """A climb on its way. What it remembers of an image, it remembers for each by itself."""

    def step(self, threat: Threat, x: Tensor, z: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        """z, the gradient there [N, ...] and the objective's values [N] -> the next z.

        The values still have their graph.
        """
        ...

    def rows(self, index: Tensor) -> Climb:
        """The climb of the images at `index` [M] alone."""
        ...


@dataclass(frozen=True)
class FixedSteps:
    """Every step is that of the threat: projected gradient ascent. It serves every threat."""

    def start(self, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Climb:
        return self

    def step(self, threat: Threat, x: Tensor, z: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        return threat.step(x, z, grad)

    def rows(self, index: Tensor) -> Climb:
        return self


@dataclass(frozen=True)
class FallingSteps:
    """Steps that fall linearly: step i of n, counted from 0, has (1 - i / n) of the first size.

    It serves `LinfBall`, `L2Ball` and `SoftSignBall`, whose own step size is not used.

    Attributes:
        first: size of the first step, a number or a tensor [N].
    """

    first: float | Tensor

    def start(self, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Climb:
        ball = movable(threat)
        if ball.norm == "l1":
            raise InputError("FallingSteps serves linf and l2 balls; use SparseSteps for l1.")
        return _Falling(self.first, steps)


def falling_steps(ball: Ball) -> Climber:
    """Steps that fall linearly from the ball's own step size; in l1 `SparseSteps`."""
    return SparseSteps() if ball.norm == "l1" else FallingSteps(ball.step_size)


@dataclass(frozen=True)
class HalvingSteps:
    """APGD (Croce and Hein, 2020): steps from 2 eps on, halved where they no longer pay.

    It serves `LinfBall`, `L2Ball` and `SoftSignBall`. Each move is three quarters of a projected
    gradient step and a quarter of the last move. At checkpoints, which lie ever closer, an image's
    step is halved and it returns to its best point if fewer than three quarters of its steps since
    the last checkpoint increased the value, or if neither its step nor its best value has changed
    since then. Step sizes of the threat are not used.
    """

    def start(self, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Climb:
        ball = movable(threat)
        if ball.norm == "l1":
            raise InputError("HalvingSteps serves linf and l2 balls; use SparseSteps for l1.")
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        values = x.new_zeros(len(x))
        return _Halving(
            size=_sizes(2.0, ball, x),
            best=z,
            best_grad=z,
            highest=values,
            count=0,
            checkpoints=checkpoints(steps),
            before=z,
            last=values,
            rises=none,
            halved=torch.ones_like(none, dtype=torch.bool),
            highest_then=values,
        )


@dataclass(frozen=True)
class SparseSteps:
    """APGD for the l1 ball (Croce and Hein, 2021): each step moves the pixels that matter most.

    It serves `L1Ball`. The steps start with length eps and a fifth of the pixels. After every
    twenty-fifth part of the steps, the number of pixels to move becomes two thirds of those that
    the best image so far has moved. If these are at least 5% fewer than at the last checkpoint, the
    image returns to that best point and its steps are of length eps again; else they are shortened,
    to eps / 10 at most.
    """

    def start(self, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Climb:
        ball = movable(threat)
        if ball.norm != "l1":
            raise InputError(f"SparseSteps serves l1 balls; use HalvingSteps for {ball.norm}.")
        moved = _moved(x, z)
        moved = torch.where(moved == 0, x[:1].numel(), moved)  # a start at x says nothing
        eps = _sizes(1.0, ball, x)
        return _Sparse(
            size=eps,
            best=z,
            best_grad=z,
            highest=x.new_zeros(len(x)),
            count=0,
            eps=eps,
            every=max(steps // 25, 1),
            share=_share(moved, x).clamp(max=SPARSITY),
            moved=moved,
        )


def checkpoints(steps: int) -> frozenset[int]:
    """After which steps APGD looks back: 22% of them, then 19% later, 16%, ... and at last 6%."""
    share, gap, found = 0, 22, []
    while share < 100:
        share, gap = share + gap, max(gap - 3, 6)
        found.append(-(-share * steps // 100))  # rounded up
    return frozenset(found)


@dataclass
class _Falling:
    first: float | Tensor
    steps: int
    count: int = 0

    def step(self, threat: Threat, x: Tensor, z: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        size = (1 - self.count / self.steps) * self.first
        self.count += 1
        sizes = torch.as_tensor(size, dtype=x.dtype, device=x.device).expand(len(x))
        return movable(threat).move(x, z, grad, sizes)

    def rows(self, index: Tensor) -> _Falling:
        return replace(self, first=rows_of(self.first, index))


@dataclass
class _Adaptive:
    """What both of APGD's climbs remember of each image.

    Attributes:
        size: of each image's step, [N].
        best, best_grad, highest: the point with the highest value so far, its gradient and value.
        count: steps taken, the same for all images.
    """

    size: Tensor
    best: Tensor
    best_grad: Tensor
    highest: Tensor
    count: int

    def rows(self: AnyClimb, index: Tensor) -> AnyClimb:
        state = vars(self).items()
        picked: dict[str, Any] = {name: v[index] for name, v in state if isinstance(v, Tensor)}
        return replace(self, **picked)

    def track(self, z: Tensor, grad: Tensor, values: Tensor) -> None:
        """Remember the points z that are better than the best before."""
        if self.count == 0:
            self.best, self.best_grad, self.highest = z, grad, values
            return
        better = values > self.highest
        self.highest = torch.where(better, values, self.highest)
        self.best, self.best_grad = _where(better, (self.best, self.best_grad), (z, grad))


@dataclass
class _Halving(_Adaptive):
    """
    Attributes:
        checkpoints: after which numbers of steps it looks back.
        before: the point of the step before, and `last`, the value there.
        rises: [N], how many steps since the last checkpoint increased the value.
        halved, highest_then: whether the step was halved at the last checkpoint, and the highest
            value there.
        since: the last checkpoint.
    """

    checkpoints: frozenset[int]
    before: Tensor
    last: Tensor
    rises: Tensor
    halved: Tensor
    highest_then: Tensor
    since: int = 0

    def step(self, threat: Threat, x: Tensor, z: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        ball, values = movable(threat), values.detach()
        self.track(z, grad, values)
        if self.count == 0:
            self.highest_then = values
            following = ball.move(x, z, grad, self.size)
        else:
            self.rises = self.rises + (values > self.last)
            if self.count in self.checkpoints:
                z, grad = self._look_back(z, grad)
            moved = torch.lerp(z, ball.move(x, z, grad, self.size), MOMENTUM)
            following = ball.project(x, moved.add_(z - self.before, alpha=1 - MOMENTUM))
        self.before, self.last = z, values
        self.count += 1
        return following

    def _look_back(self, z: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        few = self.rises < RISES * (self.count - self.since)
        stuck = few | (~self.halved & (self.highest <= self.highest_then))
        self.size = torch.where(stuck, self.size / 2, self.size)
        self.halved, self.highest_then = stuck, self.highest
        self.rises, self.since = torch.zeros_like(self.rises), self.count
        return _where(stuck, (z, grad), (self.best, self.best_grad))


@dataclass
class _Sparse(_Adaptive):
    """
    Attributes:
        eps: [N], in the images' type.
        every: steps from one checkpoint to the next.
        share: [N], of the pixels that a step moves.
        moved: [N], how many pixels the best image had moved at the last checkpoint.
    """

    eps: Tensor
    every: int
    share: Tensor
    moved: Tensor

    def step(self, threat: Threat, x: Tensor, z: Tensor, grad: Tensor, values: Tensor) -> Tensor:
        self.track(z, grad, values.detach())
        if self.count > 0 and self.count % self.every == 0:
            z, grad = self._look_back(x, z, grad)
        self.count += 1
        size = grad.flatten(1).abs()
        pixels = size.shape[1]
        index = ((1 - self.share) * pixels).long().clamp_(0, pixels - 1)[:, None]
        least = size.sort(dim=1).values.gather(1, index)
        # Entries that are not finite stay, so that a watch over the threat sees them.
        sparse = grad.masked_fill((size < least).view_as(grad), 0.0)
        return movable(threat).move(x, z, sparse, self.size)

    def _look_back(self, x: Tensor, z: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        moved = _moved(x, self.best)
        sparser = moved < SPARSER_BY * self.moved
        shorter = torch.maximum(self.size / SHRINK, LEAST * self.eps)
        self.size = torch.where(sparser, self.eps, shorter)
        self.share, self.moved = _share(moved, x), moved
        return _where(sparser, (z, grad), (self.best, self.best_grad))


def _sizes(factor: float, ball: Movable, x: Tensor) -> Tensor:
    """`factor` times the radius for each image, [N]."""
    eps = ball.eps.to(x) if isinstance(ball.eps, Tensor) else ball.eps
    return x.new_full((len(x),), factor) * eps


def _moved(x: Tensor, z: Tensor) -> Tensor:
    """[N]: how many pixels of z differ from x, in x's type."""
    return (z != x).flatten(1).sum(dim=1).to(x.dtype)


def _share(moved: Tensor, x: Tensor) -> Tensor:
    """The share of the pixels to move, [N], where the best images have moved so many."""
    return moved / (SPARSER * max(x[:1].numel(), 1))


def _where(
    rows: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Two pairs of images [N, ...] -> the new ones in `rows` [N] bool, the old ones elsewhere."""
    images = rows.view(-1, *[1] * (old[0].dim() - 1))
    return torch.where(images, new[0], old[0]), torch.where(images, new[1], old[1])
