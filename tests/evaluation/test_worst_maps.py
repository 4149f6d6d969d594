"""The `best` protocol of attacks on maps: the worst map of each image."""

from __future__ import annotations

import pytest
import torch

from fastinterp import InputError, data, models
from fastinterp.attacks import AAI
from fastinterp.evaluation import aai_best_sweep, topk_intersection, worst_maps
from fastinterp.evaluation.by_attack import Request, measure, settings_used
from fastinterp.evaluation.worst_maps import TRIES, Search
from fastinterp.interpreters import CAM
from fastinterp.ops import kendall_tau

HOW = {"steps": 5, "k": 3, "progress": False}


def search(problem, eps: float = 0.2, rows=slice(None)) -> Search:
    model, x, y = problem
    return Search(CAM(model), x[rows], y[rows], eps, 5, "linf", 3, 0)


def test_no_weaker_than_any_attack_and_predictions_stay(make_problem, monkeypatch) -> None:
    model, x, y = problem = make_problem(15)
    seen = []

    class Recorded(AAI):
        def __call__(self, x, y, generator=None, start=None):
            x_adv = super().__call__(x, y, start=start)
            seen.append(x_adv)
            return x_adv

    monkeypatch.setattr(worst_maps, "AAI", Recorded)
    noise = 2 * torch.rand_like(x) - 1
    found = search(problem).run(x, noise)
    assert len(seen) == len(TRIES)
    before = CAM(model)(x, y).detach().flatten(1)
    for x_adv in seen:
        kept = model(x_adv).argmax(1) == model(x).argmax(1)
        after = CAM(model)(x_adv, y).detach().flatten(1)
        assert (found.kendall_tau <= kendall_tau(before, after))[kept].all()
        common = topk_intersection(before, after, 3)
        assert (found.topk_intersection <= common)[kept].all()
    assert torch.equal(model(found.x_adv).argmax(1), model(x).argmax(1))
    assert ((found.x_adv - x).abs() <= 0.2 + 1e-6).all()
    after = CAM(model)(found.x_adv, y).detach().flatten(1)
    assert torch.equal(found.kendall_tau, kendall_tau(before, after))
    assert found.kendall_tau.mean() < 0.9


def test_no_image_depends_on_the_others(make_problem) -> None:
    """Not on its batch, nor on its place in the set."""
    _, x, _ = problem = make_problem(12)
    whole = search(problem).run(x)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for rows in (order, torch.tensor([4]), torch.arange(3, 9)):
        part = search(problem, rows=rows).run(x[rows])
        assert torch.equal(part.kendall_tau, whole.kendall_tau[rows])
        assert torch.equal(part.x_adv, whole.x_adv[rows])


def test_a_larger_ball_is_never_safer(make_problem) -> None:
    model, x, y = make_problem(9)
    rows = aai_best_sweep(model, CAM(model), x, y, eps=[0.2, 0.05, 0.0, 0.1], **HOW)
    tau = {row["eps"]: row["kendall_tau"] for row in rows}
    common = {row["eps"]: row["topk_intersection"] for row in rows}
    assert [row["eps"] for row in rows] == [0.2, 0.05, 0.0, 0.1]
    assert tau[0.0] == common[0.0] == 1.0
    assert tau[0.2] < tau[0.1] < tau[0.05] < 1
    assert common[0.2] <= common[0.1] <= common[0.05] <= 1
    assert all(row["n_unchanged"] == row["n"] == 9 for row in rows)
    again = aai_best_sweep(model, CAM(model), x, y, eps=[0.2, 0.05, 0.0, 0.1], batch_size=4, **HOW)
    for one, two in zip(rows, again, strict=True):
        assert one["kendall_tau"] == pytest.approx(two["kendall_tau"], abs=1e-12)
    smaller = search((model, x, y), 0.1).run(x)
    carried = search((model, x, y), 0.2).run(smaller.x_adv)
    assert (carried.kendall_tau <= smaller.kendall_tau).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_other_norms(make_problem, norm) -> None:
    model, x, y = make_problem(6)
    (row,) = aai_best_sweep(model, CAM(model), x, y, eps=1.0, norm=norm, **HOW)
    assert row["kendall_tau"] < 0.99


def test_a_constant_map_has_no_tau(make_problem) -> None:
    _, x, _ = problem = make_problem(4)
    dead = search(problem)
    dead.maps = torch.ones_like(dead.maps)
    assert dead.run(x).kendall_tau.isnan().all()


def test_eval_runs_it() -> None:
    digits = data.load("digits")
    request = Request(models.small(seed=0), digits, 5, "best", eps=[0.05], steps=[3])
    (row,) = measure("aai", request)
    plain = Request(models.small(seed=0), digits, 5, eps=[0.05], steps=[3])
    (paper,) = measure("aai", plain)
    assert row["n_unchanged"] == 5
    if paper["n_unchanged"] == 5:
        assert row["kendall_tau"] <= paper["kendall_tau"]
    assert settings_used("aai", request) == {
        "norm": "linf", "step_size": None, "seed": 99, "k": 8
    }  # fmt: skip
    for name, value in {"kind": "rank", "hinge": 1.0, "step_size": 0.1}.items():
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} has no meaning"):
            measure("aai", Request(models.small(seed=0), digits, 5, "best", **{name: value}))


def test_refused(make_problem) -> None:
    model, x, y = make_problem(3)
    with pytest.raises(InputError, match="aai_best_sweep: noise is for linf"):
        aai_best_sweep(model, CAM(model), x, y, eps=0.1, noise=x[:2])
    with pytest.raises(InputError, match="norm must be one of"):
        aai_best_sweep(model, CAM(model), x, y, eps=0.1, norm="l3")
