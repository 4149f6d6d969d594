"""The smooth Kendall's tau and the attack that climbs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastinterp import InputError, data, models
from fastinterp.attacks import AAI, FallingSteps, L1Ball, LinfBall, Outputs, Rank, soft_tau
from fastinterp.attacks import rank as module
from fastinterp.attacks.rank import pair_width
from fastinterp.evaluation import paper_selection
from fastinterp.evaluation.aai_scores import aai_scores
from fastinterp.interpreters import CAM, IntegratedGradients
from fastinterp.ops import kendall_tau


def maps(n: int = 3, length: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, n, length, generator=generator, dtype=torch.float64)
    a[0, 3] = a[0, 5]  # a tie
    return a, b


def test_soft_tau_is_its_formula() -> None:
    a, b = maps()
    expected = []
    for row, other in zip(a.tolist(), b.tolist(), strict=True):
        pairs = [(i, j) for i in range(11) for j in range(11) if i != j]
        spread = (sum((row[i] - row[j]) ** 2 for i, j in pairs) / len(pairs)) ** 0.5
        total = 0.0
        for i, j in pairs:
            sign = (row[i] > row[j]) - (row[i] < row[j])
            difference = torch.tensor(other[i] - other[j], dtype=torch.float64)
            total += sign * float(torch.tanh(difference / (0.3 * spread)))
        expected.append(total / len(pairs))
    found = soft_tau(a, b, pair_width(a, 0.3))
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def test_gradient_and_blocks(monkeypatch) -> None:
    a, b = maps()
    width = pair_width(a, 0.5)
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda each: soft_tau(a, each, width), (b,))
    whole = soft_tau(a, b, width)
    (grad,) = torch.autograd.grad(whole.sum(), b)
    monkeypatch.setattr(module, "BLOCK", 1)  # one row at a time
    parts = soft_tau(a, b, width)
    assert torch.equal(parts, whole)
    assert torch.equal(torch.autograd.grad(parts.sum(), b)[0], grad)


def test_cold_it_is_kendalls() -> None:
    a, b = (each[1:] for each in maps())  # without the tie
    assert torch.allclose(soft_tau(a, b, pair_width(a, 1e-9)), kendall_tau(a, b), rtol=0, atol=1e-9)
    assert soft_tau(a[:, :1], b[:, :1], torch.ones(2)).isnan().all()


def test_value_is_the_true_tau(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    x_adv = (x + 0.1 * torch.rand_like(x)).clamp(0, 1).requires_grad_()
    value = Rank(CAM(model)).prepare(Outputs(model, x).detach(), y)(Outputs(model, x_adv))
    before, after = (CAM(model)(each, y).detach().flatten(1) for each in (x, x_adv))
    assert torch.equal(value, -kendall_tau(before, after))
    moving = CAM(model)(x_adv, y).flatten(1)
    soft = -soft_tau(before, moving, pair_width(before, 0.1))
    (expected,) = torch.autograd.grad(soft.sum(), x_adv)
    (grad,) = torch.autograd.grad(value.sum(), x_adv)
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12) and expected.abs().sum() > 0


@pytest.mark.parametrize("eps", [0.2, torch.tensor([0.1, 0.2], dtype=torch.float64)])
def test_steps_fall_linearly(eps) -> None:
    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    threat = LinfBall(10.0, 0.0, -9, 9)
    z, up = x.clone(), torch.ones_like(x)
    climb = FallingSteps(eps).start(threat, x, z, 4)
    for share in (1.0, 0.75, 0.5, 0.25):
        before = z.clone()
        z = climb.step(threat, x, z, up, up[:, 0])
        moved = share * torch.as_tensor(eps, dtype=x.dtype).expand(2)
        assert torch.allclose((z - before)[:, 0], moved, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="SparseSteps for l1"):
        FallingSteps(eps).start(L1Ball(1.0, 0.0), x, z, 4)


@pytest.mark.parametrize("make", [CAM, lambda m: IntegratedGradients(m, 3)])
def test_lowers_tau_and_keeps_the_prediction(make_tiny, batch, make) -> None:
    model, (x, y) = make_tiny(), batch
    start = (x + 0.1 * torch.rand_like(x)).clamp(0, 1)
    scores = {
        kind: aai_scores(AAI(model, make(model), 0.15, steps=30, kind=kind, k=2), x, y, start)
        for kind in ("topk", "rank")
    }
    assert all(each.unchanged.all() for each in scores.values())
    assert scores["rank"].kendall_tau.mean() < scores["topk"].kendall_tau.mean() - 0.1


def test_a_constant_map_has_no_order(make_tiny, batch) -> None:
    """Its image stays as it is; the others are attacked all the same."""
    model, (x, y) = make_tiny(), batch
    with torch.no_grad():
        model.weight[0] = 0
    x_adv = AAI(model, CAM(model), 0.1, steps=5, kind="rank", random_start=False)(x, y)
    changed = (x_adv != x).flatten(1).any(1)
    assert torch.equal(changed, y != 0)


def test_settings() -> None:
    model = models.small(seed=0)
    attack = AAI(model, CAM(model), 0.3, kind="rank")
    assert attack.threat.step_size == 0.3 and attack.temperature == 0.1
    assert AAI(model, CAM(model), 0.3).threat.step_size == 0.01
    with pytest.raises(InputError, match="temperature"):
        AAI(model, CAM(model), 0.3, kind="rank", temperature=0.0)
    x = torch.rand(2, 1, 28, 28)
    same = AAI(model, CAM(model), 0.3, kind="rank", steps=0, random_start=False)
    assert torch.equal(same(x, torch.tensor([1, 2])), x)


def test_far_stronger_than_the_papers_on_int(shared: Path) -> None:
    mnist = data.load("mnist", shared / "data")
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl")
    chosen, _ = paper_selection(len(mnist), 20)
    x, y = mnist.float(chosen), mnist.labels[chosen]
    start = (x + 0.3 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    paper = aai_scores(AAI(model, CAM(model), 0.3, steps=100, hinge=0, keep="last"), x, y, start)
    rank = aai_scores(AAI(model, CAM(model), 0.3, steps=50, kind="rank"), x, y, start)
    assert rank.unchanged.all()
    assert rank.kendall_tau.mean() < paper.kendall_tau[paper.unchanged].mean() - 0.04
