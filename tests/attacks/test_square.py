"""Square: what it may ask for, where it may go, and that images do not meet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import Square
from fastinterp.attacks.square_proposals import pyramids, share_of_pixels
from fastinterp.models import small

RADIUS = {"linf": 0.1, "l2": 1.0, "l1": 8.0}
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


class Quadratic:
    """Logits of 10x10 images in float64, summed image by image: a function, not a module."""

    def __init__(self, channels: int = 2, bias: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(1)
        size = channels * 100
        self.weight = torch.randn((4, size), generator=generator, dtype=torch.float64)
        self.bias, self.sizes = bias, list[int]()

    def __call__(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not x.requires_grad
        self.sizes.append(len(x))
        flat = (x - 0.5).flatten(1).double()
        logits = (flat[:, None] * self.weight).sum(dim=2) + (flat**2).sum(dim=1, keepdim=True)
        logits[:, 0] += self.bias
        return logits.detach()


def problem(channels: int = 2, n: int = 12, bias: float = 0.0) -> tuple[Quadratic, Tensor, Tensor]:
    model = Quadratic(channels, bias)
    x = torch.rand((n, channels, 10, 10))
    with torch.no_grad():
        y = model(x).argmax(1)
    model.sizes.clear()
    return model, x, y


def margin(model: Quadratic, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    own = logits.gather(1, y[:, None]).squeeze(1)
    return own - logits.scatter(1, y[:, None], -math.inf).amax(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", RADIUS)
def test_inside_ball_and_range_and_lower_margins(norm, channels) -> None:
    model, x, y = problem(channels)
    x[:4] = x[:4].round()  # at the ends of the range
    with torch.no_grad():
        y = model(x).argmax(1)
    x_adv = Square(model, eps=0.3 * RADIUS[norm], queries=60, norm=norm)(x, y)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    moved = (x_adv - x).flatten(1).norm(p=ORDER[norm], dim=1)
    assert (moved <= 0.3 * RADIUS[norm] * (1 + 1e-5)).all()
    assert (margin(model, x_adv, y) < margin(model, x, y)).all()


@pytest.mark.parametrize("norm", RADIUS)
def test_an_image_alone_and_in_any_batch(norm) -> None:
    model, x, y = problem()
    attack = Square(model, eps=0.3 * RADIUS[norm], queries=80, norm=norm, screen=True)
    x_adv = attack(x, y)
    order = torch.randperm(len(x))
    assert torch.equal(attack(x[order], y[order]), x_adv[order])
    alone = torch.cat([attack(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    assert torch.equal(alone, x_adv)
    other = Square(model, eps=0.3 * RADIUS[norm], queries=80, norm=norm, seed=1)(x, y)
    assert not torch.equal(other, x_adv)


def test_radii_of_their_own() -> None:
    model, x, y = problem(n=4)
    eps = torch.tensor([0.0, 0.01, 0.02, 0.03])
    for norm, power in ORDER.items():
        radius = 10 * RADIUS[norm] * eps
        x_adv = Square(model, eps=radius, queries=30, norm=norm)(x, y)
        assert ((x_adv - x).flatten(1).norm(p=power, dim=1) <= radius * (1 + 1e-5)).all()
        one = Square(model, eps=radius[2:3], queries=30, norm=norm)(x[2:3], y[2:3])
        assert torch.equal(one, x_adv[2:3])


@pytest.mark.parametrize("norm", RADIUS)
def test_a_network_that_writes_into_its_images_and_a_caller_under_inference_mode(norm) -> None:
    model, x, y = problem()
    y[:2] = (y[:2] + 1) % 4  # wrong at x
    x_adv = Square(model, eps=RADIUS[norm] / 4, queries=20, norm=norm)(x, y)

    def writes(x: Tensor) -> Tensor:
        logits = model(x)
        x.mul_(0.5)
        return logits

    with torch.inference_mode():
        again = Square(writes, eps=RADIUS[norm] / 4, queries=20, norm=norm)(x.clone(), y.clone())
    assert torch.equal(again, x_adv)


def test_queries_are_counted_and_fooled_images_leave() -> None:
    model, x, y = problem(bias=100.0)  # nothing fools it
    y[:3] = 1  # wrong at x
    x_adv = Square(model, eps=0.1, queries=25)(x, y)
    # One pass counts the classes, one asks who is right at x.
    assert model.sizes == [1, 12] + [9] * 25
    assert torch.equal(x_adv[:3], x[:3]) and not torch.equal(x_adv[3:], x[3:])
    model, x, y = problem()
    x_adv = Square(model, eps=0.1, queries=500)(x, y)
    assert (margin(model, x_adv, y) < 0).all()
    sizes = model.sizes[2:-1]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) < 500 and sizes[-1] < 12


def test_screening_gives_hopeless_images_up() -> None:
    model, x, y = problem(bias=100.0)
    Square(model, eps=0.01, queries=100, screen=True)(x, y)
    assert model.sizes == [1, 12] + [12] * 5
    # An image that is not hopeless takes the same way as without screening.
    model, x, y = problem()
    plain = Square(model, eps=0.02, queries=100)(x, y)
    screened = Square(model, eps=0.02, queries=100, screen=True)(x, y)
    fooled = margin(model, screened, y) < 0
    assert fooled.sum() > 0 and torch.equal(plain[fooled], screened[fooled])


def test_targets_are_reached() -> None:
    model, x, y = problem()
    x_adv = Square(model, eps=0.2, queries=500, targeted=True)(x, (y + 1) % 4)
    with torch.no_grad():
        assert (model(x_adv).argmax(1) == (y + 1) % 4).all()


def test_a_linear_network_is_pushed_to_its_optimum() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).double()
    x = torch.rand((5, 1, 5, 5), dtype=torch.float64)
    with torch.no_grad():
        model[1].bias[0] += 50
        x_adv = Square(model, eps=0.1, queries=1500)(x, torch.zeros(5).long())
    weight = (model[1].weight[1] - model[1].weight[0]).view(1, 5, 5)
    assert torch.equal(x_adv, torch.where(weight > 0, x + 0.1, x - 0.1).clamp(0, 1))


def test_released_form_and_module_agree_on_who_is_fooled() -> None:
    """The search runs on a folded, fused network; verdicts are the model's own."""
    model = small(seed=0)
    x = torch.rand((6, 1, 28, 28))
    y = model(x).argmax(1)
    model.train()
    x_adv = Square(model, eps=0.2, queries=200)(x, y)
    assert model.training
    alone = torch.cat(
        [Square(model, eps=0.2, queries=200)(x[i : i + 1], y[i : i + 1]) for i in range(6)]
    )
    assert torch.equal(alone, x_adv)


def test_schedule_and_pyramids() -> None:
    shares = [share_of_pixels(query, 5000, 0.8) / 0.8 for query in (0, 5, 6, 26, 4001, 4999)]
    assert shares == [1, 1, 1 / 2, 1 / 4, 1 / 512, 1 / 512]
    like = torch.zeros((), dtype=torch.float64)
    for power, norm in ((2, 2), (4, 1)):
        pair = pyramids(6, like, norm, power)
        assert pair[:3].min() >= 0 and pair[3:].max() <= 0
        assert math.isclose(float(pair.norm(p=norm)), 1)
    # Eq. (2) of the paper for 3 x 6, from the middle out: 1 + 1/4 + 1/9 + 1/16, ...
    upper = pyramids(6, like, 2, 2)[:3] / pyramids(6, like, 2, 2)[1, 3]
    sums = [1 + 1 / 4 + 1 / 9 + 1 / 16, 1 / 4 + 1 / 9 + 1 / 16, 1 / 9 + 1 / 16, 1 / 16]
    row = torch.tensor([sums[3], sums[2], sums[1], sums[0], sums[1], sums[2]], dtype=torch.float64)
    assert torch.allclose(upper[1], row / sums[0])
    assert torch.allclose(upper[0], row.clamp(max=sums[1]) / sums[0])


@pytest.mark.parametrize(
    "wrong", [{"norm": "l3"}, {"queries": 0}, {"p_init": 1.5}, {"eps": -1}, {"n_queries": 7}]
)
def test_wrong_settings(wrong) -> None:
    with pytest.raises(InputError):
        Square(nn.Flatten(), **wrong)


def test_wrong_images() -> None:
    model, x, y = problem()
    with pytest.raises(InputError, match="images"):
        Square(model)(x.flatten(1), y)
    assert Square(model)(x[:0], y[:0]).shape == x[:0].shape
    with pytest.raises(InputError, match="not finite"):
        Square(lambda x: x.flatten(1)[:, :3] * torch.nan)(x, y % 3)
