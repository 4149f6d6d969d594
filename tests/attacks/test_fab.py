"""FAB: distances that linear networks give in closed form, and images that do not meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import FAB
from fastinterp.attacks.hyperplane import length

DUALS = [("linf", 1), ("l2", 2), ("l1", float("inf"))]


class Linear(nn.Module):
    """Classes of 6x6 images, in float64."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(36, classes).double()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return (x.flatten(1)[:, None] * self.linear.weight).sum(2) + self.linear.bias


@pytest.fixture
def problem() -> tuple[Linear, Tensor, Tensor]:
    """Images around grey, whose boundaries lie within the range of pixels."""
    model = Linear()
    x = 0.4 + 0.2 * torch.rand((8, 1, 6, 6), dtype=torch.float64)
    with torch.no_grad():
        model.linear.bias -= model(x).mean(0)
        y = model(x).argmax(1)
    model.sizes.clear()
    return model, x, y


def distances(model: Linear, x: Tensor, y: Tensor, dual: float) -> Tensor:
    """To the boundary with every class, [N, C]; infinite for the true one."""
    with torch.no_grad():
        logits, weight = model(x), model.linear.weight
        ahead = logits.gather(1, y[:, None]) - logits
        size = torch.stack([(weight[label] - weight).norm(p=dual, dim=1) for label in y])
        return (ahead / size).scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize(("norm", "dual"), DUALS)
@pytest.mark.parametrize("n_target_classes", [None, 3])
def test_closed_form(problem, norm, dual, n_target_classes) -> None:
    model, x, y = problem
    least = distances(model, x, y, dual).amin(1)
    x_adv = FAB(model, norm=norm, steps=30, n_target_classes=n_target_classes)(x, y)
    assert (model(x_adv).argmax(1) != y).all()
    assert (length(x_adv - x, norm) >= least).all()
    assert (length(x_adv - x, norm) <= 1.01 * least + 1e-7).all()


def test_a_radius_ends_the_search(problem) -> None:
    model, x, y = problem
    y[:2] = (y[:2] + 1) % 4  # wrong at x
    least = distances(model, x, y, 1).amin(1)
    eps = float(least[2:].median()) * 1.1
    x_adv = FAB(model, eps=eps, steps=20)(x, y)
    within = least <= eps / 1.06
    beyond = least > eps
    assert torch.equal(x_adv[:2], x[:2]) and torch.equal(x_adv[beyond], x[beyond])
    assert (model(x_adv[within]).argmax(1) != y[within]).all()
    assert (length(x_adv - x, "linf") <= eps).all()
    assert max(model.sizes[3:-1]) == 6 and model.sizes[-2] == int(beyond.sum())


def test_inside_the_range_at_its_corners(make_tiny) -> None:
    model = make_tiny()
    x = torch.rand((6, 1, 6, 6), dtype=torch.float64).round()
    y = model(x).argmax(1)
    for norm, _ in DUALS:
        x_adv = FAB(model, norm=norm, steps=10)(x, y)
        assert x_adv.min() >= 0 and x_adv.max() <= 1
        with torch.no_grad():
            fooled = model(x_adv).argmax(1) != y
        assert torch.equal(x_adv[~fooled], x[~fooled])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("n_target_classes", [None, 2])
def test_an_image_alone_and_in_any_batch(problem, norm, n_target_classes) -> None:
    model, x, y = problem
    attack = FAB(model, norm=norm, steps=6, restarts=3, n_target_classes=n_target_classes)
    with torch.inference_mode():
        x_adv = attack(x.clone(), y.clone())
    order = torch.randperm(len(x))
    assert torch.equal(attack(x[order], y[order]), x_adv[order])
    alone = torch.cat([attack(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    assert torch.equal(alone, x_adv)


def test_restarts_never_lose(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    y = model(x).argmax(1)
    once, more = (FAB(model, steps=8, restarts=k)(x, y) for k in (1, 4))
    found = (once != x).flatten(1).any(1)
    assert (length(more - x, "linf")[found] <= length(once - x, "linf")[found]).all()


@pytest.mark.parametrize(
    "wrong", [{"norm": "l3"}, {"steps": 0}, {"eps": -1}, {"beta": 2}, {"n_iter": 3}]
)
def test_wrong_settings(wrong) -> None:
    with pytest.raises(InputError):
        FAB(nn.Flatten(), **wrong)


def test_a_gradient_that_is_not_finite(problem) -> None:
    model, x, y = problem
    with pytest.raises(InputError, match="not finite"):
        FAB(lambda x: model(x) + (x.flatten(1)[:, :1] - x.flatten(1)[:, :1]).sqrt())(x, y)
    assert FAB(model)(x[:0], y[:0]).shape == x[:0].shape
