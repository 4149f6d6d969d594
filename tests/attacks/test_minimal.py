"""Smallest radii, against those that a linear network gives in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import Bisection, MinimalPGD


class Linear(nn.Module):
    """Two classes of 6x6 images; the class changes where the difference of logits does its sign."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(36, 2).double()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.linear(x.flatten(1))


@pytest.fixture
def problem() -> tuple[Linear, Tensor, Tensor]:
    """Images around grey, whose smallest perturbations do not meet the range of pixels."""
    model = Linear()
    generator = torch.Generator().manual_seed(2)
    x = 0.4 + 0.2 * torch.rand((8, 1, 6, 6), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
        model.linear.bias -= logits.mean(0)
        y = model(x).argmax(1)
    return model, x, y


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("keep", ["last", "first_fooled"])
def test_closed_form(problem, norm, dual, targeted, keep) -> None:
    model, x, y = problem
    weight = model.linear.weight[1] - model.linear.weight[0]
    distance = (model(x)[:, 1] - model(x)[:, 0]).abs() / weight.norm(p=dual)
    attack = MinimalPGD(
        model, norm=norm, targeted=targeted, keep=keep, search=Bisection(0.05, rounds=30)
    )
    found = attack(x, 1 - y if targeted else y)
    assert found.success.all()
    assert torch.allclose(found.eps, distance.detach(), rtol=1e-4, atol=1e-7)
    assert (model(found.x_adv).argmax(1) != y).all()
    moved = (found.x_adv - x).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert (moved <= found.eps + 1e-12).all()


def test_wrong_ones_need_nothing_and_leave(problem) -> None:
    model, x, y = problem
    y[:3] = 1 - y[:3]
    model.sizes.clear()
    found = MinimalPGD(model)(x, y)
    assert found.eps[:3].tolist() == [0, 0, 0] and (found.eps[3:] > 0).all()
    assert torch.equal(found.x_adv[:3], x[:3])
    assert model.sizes[:2] == [1, 8]  # one to count the classes, one to see who is wrong
    assert max(model.sizes[2:]) == 5


def test_none_found(problem) -> None:
    model, x, y = problem
    with torch.no_grad():
        model.linear.bias[0] += 1e3
    found = MinimalPGD(model)(x, torch.zeros_like(y))
    assert not found.success.any()
    assert found.eps.isinf().all()
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()


def test_images_do_not_meet_and_callers_need_no_autograd(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    y = model(x).argmax(1)
    attack = MinimalPGD(model)
    together = attack(x, y)
    assert together.success.any()
    alone = [attack(x[[n]], y[[n]]) for n in range(len(x))]
    assert torch.equal(together.eps, torch.cat([one.eps for one in alone]))
    assert torch.allclose(together.x_adv, torch.cat([one.x_adv for one in alone]), atol=1e-10)
    with torch.inference_mode():
        inside = attack(x.clone(), y.clone())
    assert torch.equal(inside.eps, together.eps)
    assert attack(x[:0], y[:0]).x_adv.shape == (0, 1, 6, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "l3"},
        {"steps": 0},
        {"steps": 1.5},
        {"relative_step": 0.0},
        {"relative_step": "a"},
        {"keep": "worst"},
        {"search": 5},
        {"objective": "ce"},
    ],
)
def test_refused(make_tiny, settings) -> None:
    with pytest.raises(InputError):
        MinimalPGD(make_tiny(), **settings)


def test_labels_are_checked(make_tiny, batch) -> None:
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.3"):
        MinimalPGD(make_tiny())(batch[0], batch[1] + 5)
