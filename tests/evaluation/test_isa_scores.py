"""NDS and NSL: by hand, and on networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fastinterp import InputError, data, models
from fastinterp.attacks import ISA, Bisection
from fastinterp.evaluation import paper_selection
from fastinterp.evaluation.isa_scores import Curve, isa_curve, isa_row, score
from fastinterp.interpreters import CAM

QUICK = {"radii": Bisection(0.05, rounds=5), "weights": Bisection(1e-3, rounds=3)}


def test_score_by_hand() -> None:
    falls = [4.0, 3.0, 2.0]
    grows_again = [2.0, 1.0, 5.0]  # counts as 2, 1, 1
    failed_once = [9.0, 6.0, 3.0]  # counts as 9, 3
    never_falls = [1.0, 2.0, 3.0]
    failed = [1.0, 1.0, 1.0]
    discrepancies = torch.tensor([falls, grows_again, failed_once, never_falls, failed]).T
    usable = torch.ones(3, 5, dtype=torch.bool)
    usable[1, 2] = False
    usable[:, 4] = False
    eps = torch.tensor([0.1, 0.12, 0.16])[:, None].expand(3, 5)
    found = score(Curve(discrepancies, eps, usable))
    assert found.nds == pytest.approx((4 + 3 + 2 + 2 + 1 + 1 + 9 + 3) / 8)
    slopes = [0.5 / 0.6, 0.5 / 0.6, (2 / 3) / 0.6]
    assert found.slope == pytest.approx(sum(slopes) / 3, rel=1e-5)
    assert found.nsl == pytest.approx(sum(slopes) / 8, rel=1e-5)
    assert (found.n, found.points) == (3, 8)


def test_score_of_nothing() -> None:
    none = score(Curve(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)))
    assert math.isnan(none.nds) and math.isnan(none.nsl) and none.n == none.points == 0


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_curve(make_problem, norm) -> None:
    model, x, y = make_problem(12)
    targets = (y + 1) % 3
    attack = ISA(model, CAM(model), norm, **QUICK)
    penalties = (1.0, 1.5)
    model.train()
    found = isa_curve(attack, x, y, targets, penalties=penalties, progress=False)
    assert model.training
    model.eval()
    smallest = attack.smallest(x, targets)
    attacked = [smallest.x_adv, *(attack(x, y, targets, smallest.eps * p).x_adv for p in penalties)]
    ahead = model(x).argmax(1) == targets
    p = 1 if norm == "l1" else 2
    for row, x_adv in enumerate(attacked):
        logits = model(x_adv)
        beats = logits.gather(1, targets[:, None]) > logits.gather(1, y[:, None])
        assert not (found.usable[row] & ahead).any()
        assert not (found.usable[row] & ~beats[:, 0]).any()
        maps, maps_adv = (CAM(model)(each, torch.stack([y, targets], 1)) for each in (x, x_adv))
        spread = maps.flatten(2).amax(2) - maps.flatten(2).amin(2)
        moved = ((maps - maps_adv).flatten(2).norm(p=p, dim=2) / spread).mean(1)
        assert torch.allclose(found.discrepancy[row], moved, atol=1e-5)
        assert torch.allclose(found.eps[row], (x_adv - x).abs().flatten(1).amax(1))
    assert found.usable.any()
    parts = isa_curve(attack, x, y, targets, penalties=penalties, batch_size=5, progress=False)
    assert torch.equal(parts.usable, found.usable)
    assert torch.allclose(parts.discrepancy, found.discrepancy, atol=1e-4)


def test_row_is_the_score_of_the_curve(make_problem) -> None:
    model, x, y = make_problem(15)
    with torch.no_grad():  # maps large enough for the weights that are tried
        model.weight.mul_(30)
        model.bias.mul_(30)
    test = data.ImageData((255 * x).to(torch.uint8), y, ("a", "b", "c"), "squares")
    settings = {"penalties": (1.6,), "progress": False}
    row = isa_row(model, test, "cam", "l2", "1-class", n=6, seed=4, **settings)
    chosen, offsets = paper_selection(15, 6, 4, 3)
    x, y = test.float(chosen), test.labels[chosen]
    attack = ISA(model, CAM(model), "l2", "1-class")
    curve = isa_curve(attack, x, y, (y + offsets) % 3, **settings)
    expected = score(curve)
    squares = score(Curve(curve.discrepancy.square(), curve.eps, curve.usable))
    assert expected.n > 0
    assert row == {
        "dataset": "squares",
        "interpreter": "cam",
        "norm": "l2",
        "classes": "1-class",
        "nds": expected.nds,
        "nsl": expected.nsl,
        "slope": expected.slope,
        "nds_squared": squares.nds,
        "nsl_squared": squares.nsl,
        "n": expected.n,
        "n_images": 6,
    }
    assert row["slope"] == pytest.approx(2 * row["nsl"])  # two attacks an image
    other = isa_row(model, test, "repr", n=6, seed=4, **settings)
    assert other["nds"] != row["nds"] and other["nds_squared"] is None


def test_refused(make_problem) -> None:
    model, x, y = make_problem(4)
    attack = ISA(model, CAM(model))
    for penalties in ((), (0.5, 1.0), (1.6, 1.2)):
        with pytest.raises(InputError, match="penalties must be at least 1 and rise"):
            isa_curve(attack, x, y, (y + 1) % 3, penalties=penalties)
    with pytest.raises(InputError, match="no images"):
        isa_curve(attack, x[:0], y[:0], y[:0])
    with pytest.raises(InputError, match="no interpreter 'cams'; did you mean 'cam'"):
        isa_row(models.small(), data.load("digits"), "cams")


def test_two_classes_are_the_hardest_to_sneak_past(shared: Path) -> None:
    """Table 1's finding, on ten images of MNIST and the authors' normally trained network."""
    model = models.load(shared / "networks" / "mnist_smallgap_normal_100.pkl")
    mnist = data.load("mnist", shared / "data")
    one, two, every = (
        isa_row(model, mnist, "cam", "l1", classes, n=10, penalties=(1.0, 1.6), progress=False)
        for classes in ("1-class", "2-class", "all-class")
    )
    assert two["nds"] > max(one["nds"], every["nds"])
    assert two["nsl"] < min(one["nsl"], every["nsl"])
