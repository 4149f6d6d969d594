"""APGD's steps against the published algorithms, retold in numpy for one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from fastinterp import InputError
from fastinterp.attacks import (
    CrossEntropy,
    HalvingSteps,
    L1Ball,
    L2Ball,
    LinfBall,
    Margin,
    Outputs,
    SeededStart,
    SoftSignBall,
    SparseSteps,
    ascend,
)
from fastinterp.attacks.capped_l1 import project_l1_capped
from fastinterp.attacks.climber import checkpoints
from fastinterp.attacks.unforeseen import FogThreat

Array = NDArray[np.float64]
Function = Callable[[Array], tuple[float, Array]]  # a point -> its value and gradient
EPS = {"linf": 0.2, "l2": 0.9, "l1": 3.0}
BALLS = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}
STEPS = 30


@dataclass
class Path:
    """The points that an image visits, their values and gradients, and the steps' lengths."""

    points: list[Array] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    grads: list[Array] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    restarts: int = 0

    def visit(self, f: Function, point: Array) -> None:
        value, grad = f(point)
        self.points.append(point)
        self.values.append(value)
        self.grads.append(grad)

    def best(self) -> int:
        return int(np.argmax(self.values))  # the first of equals


def project(x: Array, z: Array, norm: str) -> Array:
    eps, delta = EPS[norm], z - x
    if norm == "linf":
        return np.clip(np.clip(z, x - eps, x + eps), 0, 1)
    if norm == "l2":
        return np.clip(x + delta * min(1, eps / max(np.linalg.norm(delta), 1e-300)), 0, 1)
    room = np.where(delta > 0, 1 - x, x)

    def shrunk(t: float) -> Array:
        return np.minimum(np.maximum(np.abs(delta) - t, 0), room)

    t = 0.0
    if shrunk(0).sum() > eps:
        t = brentq(lambda t: shrunk(t).sum() - eps, 0, np.abs(delta).max(), xtol=1e-15)
    return x + np.sign(delta) * shrunk(t)


def halving(f: Function, x: Array, start: Array, norm: str) -> Path:
    """Algorithm 1 of Croce and Hein (2020)."""
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    looks = [math.ceil(round(share * STEPS, 6)) for share in p]
    path, size = Path(), 2 * EPS[norm]
    path.visit(f, start)
    now, grad, before = start, path.grads[0], start
    halved, highest, last_look = True, path.values[0], 0
    for k in range(STEPS):
        if k in looks[1:]:
            rises = sum(path.values[i + 1] > path.values[i] for i in range(last_look, k))
            top = path.best()
            stuck = rises < 0.75 * (k - last_look)
            stuck |= not halved and path.values[top] <= highest
            if stuck:
                size, now, grad = size / 2, path.points[top], path.grads[top]
                path.restarts += 1
            halved, highest, last_look = stuck, path.values[top], k
        path.sizes.append(size)
        along = np.sign(grad) if norm == "linf" else grad / np.linalg.norm(grad)
        z = project(x, now + size * along, norm)
        if k > 0:
            z = project(x, now + 0.75 * (z - now) + 0.25 * (now - before), norm)
        before, now = now, z
        path.visit(f, now)
        grad = path.grads[-1]
    return path


def sparse(f: Function, x: Array, start: Array, norm: str) -> Path:
    """l1-APGD of Croce and Hein (2021), from a dense start."""
    path, size, d = Path(), EPS[norm], x.size
    path.visit(f, start)
    now, grad = start, path.grads[0]
    moved, share = d, 0.2
    for k in range(STEPS):
        if k > 0 and k % max(STEPS // 25, 1) == 0:
            top = path.best()
            count = int((path.points[top] != x).sum())
            if count < 0.95 * moved:
                size, now, grad = EPS[norm], path.points[top], path.grads[top]
                path.restarts += 1
            else:
                size = max(size / 1.5, EPS[norm] / 10)
            moved, share = count, count / d / 1.5
        path.sizes.append(size)
        rank = min(int((1 - share) * d), d - 1)
        signs = np.where(np.abs(grad) >= np.sort(np.abs(grad))[rank], np.sign(grad), 0)
        now = project(x, now + size * signs / np.abs(signs).sum(), norm)
        path.visit(f, now)
        grad = path.grads[-1]
    return path


@dataclass
class Case:
    """A network, a batch and a start, and each image's path by the retold algorithm."""

    model: torch.nn.Module
    x: Tensor
    y: Tensor
    start: Tensor
    ball: LinfBall | L2Ball | L1Ball
    climber: HalvingSteps | SparseSteps
    paths: list[Path]


@pytest.fixture(params=["linf", "l2", "l1"])
def case(request, make_tiny, batch) -> Case:
    norm, model, (x, y) = request.param, make_tiny(), batch
    with torch.no_grad():
        model.conv.weight *= 8  # bends the network, so that steps overshoot
    y = model(x).argmax(1)
    ball = BALLS[norm](EPS[norm], 0.0)
    start = ball.init(x, True, torch.Generator().manual_seed(2))
    paths = []
    for image, label, first in zip(x, y, start, strict=True):

        def f(point: Array, label: Tensor = label) -> tuple[float, Array]:
            z = torch.from_numpy(point).view(1, 1, 6, 6).requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(z), label[None])
            (grad,) = torch.autograd.grad(loss, z)
            return loss.item(), grad.flatten().numpy()

        climb = sparse if norm == "l1" else halving
        paths.append(climb(f, image.flatten().numpy(), first.flatten().numpy(), norm))
    climber = SparseSteps() if norm == "l1" else HalvingSteps()
    return Case(model, x, y, start, ball, climber, paths)


def run(case: Case, keep: str) -> Tensor:
    return ascend(
        case.model, case.ball, CrossEntropy(), case.x, case.y, STEPS,
        keep=keep, climber=case.climber, start=case.start,
    )  # fmt: skip


def equal(x_adv: Tensor, points: list[Array]) -> None:
    np.testing.assert_allclose(x_adv.flatten(1).numpy(), np.stack(points), rtol=0, atol=1e-9)


def test_the_published_algorithm_step_for_step(case: Case) -> None:
    """The last point depends on all those before it."""
    equal(run(case, "last"), [path.points[-1] for path in case.paths])
    assert any(path.restarts for path in case.paths)
    assert len({tuple(path.sizes) for path in case.paths}) > 1  # each image has steps of its own


def test_best_and_first_fooled_are_points_of_the_path(case: Case) -> None:
    equal(run(case, "best"), [path.points[path.best()] for path in case.paths])
    first = []
    for path, label in zip(case.paths, case.y, strict=True):
        points = torch.from_numpy(np.stack(path.points)).view(-1, 1, 6, 6)
        fooled = (case.model(points).argmax(1) != label).nonzero()
        first.append(int(fooled[0]) if len(fooled) else STEPS)
    assert len(set(first)) > 1
    found = run(case, "first_fooled")
    equal(found, [path.points[k] for path, k in zip(case.paths, first, strict=True)])


@pytest.mark.parametrize("keep", ["last", "first_fooled", "best"])
def test_an_image_does_not_depend_on_its_batch(case: Case, keep: str) -> None:
    def attack(rows: list[int]) -> Tensor:
        seeded = SeededStart(case.ball, [10 + row for row in rows])
        return ascend(
            case.model, seeded, Margin(), case.x[rows], case.y[rows], STEPS,
            random_start=True, keep=keep, climber=case.climber,
        )  # fmt: skip

    together = attack(list(range(7)))
    assert torch.allclose(attack([5, 0, 3]), together[[5, 0, 3]], rtol=0, atol=1e-9)
    assert torch.allclose(attack([6]), together[6:], rtol=0, atol=1e-9)


def test_nothing_of_the_climb_is_left_behind(case: Case) -> None:
    x, start = case.x.clone(), case.start.clone()
    case.model.train()
    with torch.inference_mode():
        once = run(case, "best")
    assert torch.equal(once, run(case, "best"))  # a climber has no memory of its own
    assert torch.equal(case.x, x) and torch.equal(case.start, start)
    assert all(p.grad is None and p.requires_grad for p in case.model.parameters())
    assert case.model.training and not once.requires_grad


def test_checkpoints_of_a_hundred_steps() -> None:
    assert sorted(checkpoints(100))[:8] == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_l1_projection_is_the_nearest_point(dtype: torch.dtype) -> None:
    """p is nearest to y in a convex set just where no point of it lies further along y - p."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(60, 30, generator=generator, dtype=torch.float64).to(dtype)
    delta[:, ::7] = 0
    room = torch.rand(60, 30, generator=generator, dtype=torch.float64).to(dtype)
    room[:, ::5] = 0
    eps = torch.linspace(0, 12, 60, dtype=dtype)[:, None]
    p = project_l1_capped(delta, room, eps)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert (p.abs() <= room).all() and (p * delta >= 0).all()
    assert (p.abs().sum(1, keepdim=True) <= eps + tolerance).all()
    aim = (delta - p).double()
    order = aim.abs().argsort(dim=1, descending=True)
    bounds = room.double().gather(1, order)  # on delta's side, where y - p points
    spent = torch.minimum(bounds.cumsum(1), eps.double()).diff(dim=1, prepend=torch.zeros(60, 1))
    furthest = (spent * aim.abs().gather(1, order)).sum(1)
    assert ((aim * p).sum(1) >= furthest - tolerance).all()


def test_a_soft_sign_ball_climbs_too(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    steep, sign = SoftSignBall(0.2, 0.0, gain=1e12), LinfBall(0.2, 0.0)
    soft, hard = (
        ascend(model, ball, CrossEntropy(), x, y, 20, climber=HalvingSteps(), keep="best")
        for ball in (steep, sign)
    )
    assert torch.allclose(soft, hard, rtol=0, atol=1e-9)


def test_threats_that_a_climber_cannot_serve(make_tiny, batch) -> None:
    def climb(threat, climber) -> None:
        ascend(make_tiny(), threat, CrossEntropy(), *batch, 2, climber=climber)

    with pytest.raises(InputError, match=r"Only a fixed step serves this threat.*FogThreat"):
        climb(SeededStart(FogThreat(0.1, 0.1), [0] * 7), HalvingSteps())
    with pytest.raises(InputError, match="use SparseSteps for l1"):
        climb(L1Ball(1.0, 0.1), HalvingSteps())
    with pytest.raises(InputError, match="use HalvingSteps for l2"):
        climb(L2Ball(1.0, 0.1), SparseSteps())


def test_values_below_every_number_are_never_the_best(make_tiny, batch) -> None:
    """AAI's objective is minus infinity where the prediction changes."""
    model, (x, y) = make_tiny(), batch

    class Walled(Margin):
        def prepare(self, clean: Outputs, labels: Tensor):
            margin = super().prepare(clean, labels)
            return lambda adv: margin(adv).masked_fill(margin(adv) > 0, -torch.inf)

    y = model(x).argmax(1)
    x_adv = ascend(
        model, LinfBall(0.3, 0.0), Walled(), x, y, 30, climber=HalvingSteps(), keep="best"
    )
    assert (model(x_adv).argmax(1) == y).all()
    assert (Margin().prepare(Outputs(model, x), y)(Outputs(model, x_adv)) > -0.1).any()
