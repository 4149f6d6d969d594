"""The `best` protocol of ISA: the lowest discrepancy of each image and ball."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastinterp import InputError, data, models
from fastinterp.attacks import ISA, Bisection
from fastinterp.evaluation.best_isa import lowest_discrepancy
from fastinterp.evaluation.isa_scores import isa_curve, isa_row
from fastinterp.interpreters import CAM, interpretability_discrepancy

QUICK = {"radii": Bisection(0.05, rounds=5), "weights": Bisection(1e-3, rounds=3)}


@pytest.mark.parametrize(("norm", "classes"), [("l1", "2-class"), ("l2", "1-class")])
def test_lower_in_the_same_ball(make_problem, norm, classes) -> None:
    model, x, y = make_problem(12)
    targets = (y + 1) % 3
    attack = ISA(model, CAM(model), norm, classes, **QUICK)
    eps = 1.6 * attack.smallest(x, targets).eps
    rows = ((eps > 0) & eps.isfinite()).nonzero().squeeze(1)
    assert len(rows) >= 5
    x, y, targets, eps = x[rows], y[rows], targets[rows], eps[rows]
    plain = attack(x, y, targets, eps=eps)
    lowest = lowest_discrepancy(attack, x, y, targets, eps, [plain.x_adv])
    assert ((lowest - x).abs().flatten(1).amax(1) <= eps + 1e-6).all()
    assert lowest.amin() >= 0 and lowest.amax() <= 1
    reached = model(lowest).argmax(1) == targets
    assert (reached | ~plain.success).all() and reached.any()

    def moved(x_adv):
        how = {"classes": classes, "p": attack.p, "normalized": True}
        return interpretability_discrepancy(CAM(model), x, x_adv, y, targets, **how)

    less = moved(lowest)[plain.success] - moved(plain.x_adv)[plain.success]
    assert (less <= 0).all() and less.mean() < -0.01
    part = lowest_discrepancy(attack, x[3:4], y[3:4], targets[3:4], eps[3:4], [plain.x_adv[3:4]])
    assert torch.equal(part, lowest[3:4])


def test_curve_falls(make_problem) -> None:
    """Smaller balls count in larger ones, so that the discrepancy cannot grow."""
    model, x, y = make_problem(8)
    attack = ISA(model, CAM(model), "l1", **QUICK)
    how = {"penalties": (1.0, 1.5), "progress": False}
    paper = isa_curve(attack, x, y, (y + 1) % 3, **how)
    best = isa_curve(attack, x, y, (y + 1) % 3, protocol="best", **how)
    both = paper.usable & best.usable
    assert both.any() and (best.discrepancy <= paper.discrepancy)[both].all()
    fell = best.discrepancy[1:] <= best.discrepancy[:-1]
    assert fell[best.usable[:-1]].all()
    assert (best.usable | ~paper.usable).all()
    assert (best.eps >= paper.eps - 1e-6)[both].all()
    with pytest.raises(InputError, match="protocol must be one of"):
        isa_curve(attack, x, y, (y + 1) % 3, protocol="plain")


@pytest.mark.slow
def test_far_lower_on_mnist(shared: Path) -> None:
    model = models.load(shared / "networks" / "mnist_smallgap_normal_100.pkl")
    mnist = data.load("mnist", shared / "data")
    how = {"n": 6, "penalties": (1.6,), "progress": False}
    nds = {
        protocol: isa_row(model, mnist, "cam", "l1", "1-class", protocol=protocol, **how)["nds"]
        for protocol in ("paper", "best")
    }
    assert nds["best"] < 0.9 * nds["paper"]
