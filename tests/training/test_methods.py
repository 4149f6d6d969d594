"""Each method's loss and its gradient against formulas written out here, float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from fastinterp import InputError
from fastinterp.attacks import Outputs
from fastinterp.interpreters import CAM, IntegratedGradients
from fastinterp.interpreters.watch import unwatched
from fastinterp.training import METHODS, Trainer, method
from fastinterp.training.seeds import derive

U = 16  # positions of the tiny network's maps
GAMMA = 0.37


def cross_entropy(model, x: Tensor, y: Tensor) -> Tensor:
    f = model(x)
    return torch.logsumexp(f, 1) - f[torch.arange(len(y)), y]


def maps(model, x: Tensor) -> Tensor:
    """Eq. (1), with its 1/u."""
    return torch.einsum("ck,nkhw->nchw", model.weight, model.features(x)) / U


def map_distance(model, x: Tensor, x_adv: Tensor) -> Tensor:
    return (maps(model, x) - maps(model, x_adv)).abs().sum((2, 3))  # [N, C]


def eq8(model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    s, rows = map_distance(model, x, x_adv), torch.arange(len(y))
    e = model(x_adv).exp()
    others = torch.ones_like(e)
    others[rows, y] = 0
    p = e * others / (e * others).sum(1, keepdim=True)
    return 0.5 * s[rows, y] + 0.5 * (p * s).sum(1)


def one_class(model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return map_distance(model, x, x_adv)[torch.arange(len(y)), y]


def kl(model, x: Tensor, x_adv: Tensor) -> Tensor:
    p, q = model(x).softmax(1), model(x_adv).softmax(1)
    return (p * (p / q).log()).sum(1)


def ig_norm(model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """Of the loss's mean over the batch, which is where the 1/N comes from."""
    total = torch.zeros_like(x)
    for k in range(1, 6):
        point = (x + (x_adv - x) * k / 5).detach().requires_grad_()
        mean = cross_entropy(model, point, y).mean()
        total = total + torch.autograd.grad(mean, point, create_graph=True)[0]
    return ((x_adv - x) * total / 5).abs().sum((1, 2, 3))


def mart(model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """Wang et al. (2020): BCE(p(x'), y) + lambda KL(p(x) || p(x')) (1 - p_y(x))."""
    rows, p, q = torch.arange(len(y)), model(x).softmax(1), model(x_adv).softmax(1)
    others = q.clone()
    others[rows, y] = 0
    bce = -q[rows, y].log() - (1 - others.amax(1)).log()
    return bce + GAMMA * kl(model, x, x_adv) * (1 - p[rows, y])


def integrated(model, x: Tensor, y: Tensor) -> Tensor:
    """Integrated gradients of the true logit from black, by five points."""
    total, m = 0, 5
    for k in range(1, m + 1):
        point = (x * k / m).detach().requires_grad_()
        logit = model(point)[torch.arange(len(y)), y].sum()
        total = total + torch.autograd.grad(logit, point, create_graph=True)[0]
    return x * total / m


def uncorrelated(model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """(1 - Pearson's r) / 2, image by image."""
    pairs = zip(integrated(model, x, y), integrated(model, x_adv, y), strict=True)
    r = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in pairs]
    return (1 - torch.stack(r)) / 2


def ranking_penalty(found: list[Tensor], beside: list[Tensor], k: int) -> Tensor:
    """R2ET's of maps [C, h, w] at each image and at a point 0.1 away, by the program's pairs."""
    values = []
    for one, other in zip(found, beside, strict=True):
        s = sorted(one.abs().sum(0).flatten(), reverse=True)
        gap = sum(s[i] - s[k - 1] for i in range(k - 1))
        gap = gap + sum(s[k - 1] - s[k + i] for i in range(k))
        values.append(((other - one) / 0.1).square().sum().sqrt() - gap)
    return torch.stack(values)


def loss_gradient(model, x: Tensor, y: Tensor) -> Tensor:
    point = x.detach().requires_grad_()
    loss = cross_entropy(model, point, y).sum()
    return torch.autograd.grad(loss, point, create_graph=True)[0]


def steepness(model, x: Tensor, y: Tensor) -> Tensor:
    return loss_gradient(model, x, y).square().sum((1, 2, 3))


def beside(model, x: Tensor, y: Tensor) -> Tensor:
    """x + 0.1 z, z the sign of the loss's gradient over its length."""
    sign = loss_gradient(model, x, y).detach().sign()
    return x + 0.1 * sign / sign.square().sum((1, 2, 3), keepdim=True).sqrt()


def r2et(model, x: Tensor, y: Tensor) -> Tensor:
    at = (loss_gradient(model, z, y).unbind() for z in (x, beside(model, x, y)))
    return ranking_penalty(*at, 6)  # of 64 pixels


# The table of section 5 and rows of other papers, per image; gamma in the units of Int's 0.01
LOSSES: dict[str, Callable] = {
    "normal": lambda m, x, z, y: cross_entropy(m, x, y),
    "adv": lambda m, x, z, y: cross_entropy(m, z, y),
    "trades": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * kl(m, x, z),
    "ig-norm": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * ig_norm(m, x, z, y),
    "ig-norm-sum": lambda m, x, z, y: cross_entropy(m, z, y) + GAMMA * ig_norm(m, x, z, y),
    "int": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * 2 * U * eq8(m, x, z, y),
    "int-1-class": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * U * one_class(m, x, z, y),
    "int-adv": lambda m, x, z, y: cross_entropy(m, z, y) + GAMMA * 2 * U * eq8(m, x, z, y),
    "mart": lambda m, x, z, y: mart(m, x, z, y),
    "fast-at": lambda m, x, z, y: cross_entropy(m, z, y),
    "n-fgsm": lambda m, x, z, y: cross_entropy(m, z, y),
    "aat": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * uncorrelated(m, x, z, y),
    "adv-aat": lambda m, x, z, y: cross_entropy(m, z, y) + GAMMA * uncorrelated(m, x, z, y),
    "input-gradient": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * steepness(m, x, y),
    "r2et": lambda m, x, z, y: cross_entropy(m, x, y) + GAMMA * r2et(m, x, y),
}
INNER: dict[str, Callable] = {
    "adv": LOSSES["adv"],
    "trades": lambda m, x, z, y: kl(m, x, z),
    "ig-norm": lambda m, x, z, y: ig_norm(m, x, z, y),
    "ig-norm-sum": LOSSES["ig-norm-sum"],
    "int": lambda m, x, z, y: 2 * U * eq8(m, x, z, y),
    "int-1-class": lambda m, x, z, y: U * one_class(m, x, z, y),
    "int-adv": LOSSES["int-adv"],
    "mart": LOSSES["adv"],
    "fast-at": LOSSES["adv"],
    "n-fgsm": LOSSES["adv"],
    "aat": lambda m, x, z, y: uncorrelated(m, x, z, y),
    "adv-aat": LOSSES["adv-aat"],
}


def make(name: str):
    return method(name, None if METHODS[name].gamma is None else GAMMA)


@pytest.fixture
def setting(make_tiny, make_data) -> tuple:
    model = make_tiny(torch.float64)
    x, y = make_data(6, torch.float64)
    return model, x, (x + 0.2 * torch.randn_like(x)).clamp(0, 1), y


def test_every_row_has_its_formula() -> None:
    assert set(METHODS) == set(LOSSES)
    without = {"normal", "input-gradient", "r2et"}
    assert set(INNER) == set(METHODS) - without


@pytest.mark.parametrize(("name", "start", "step"), [("fast-at", 1.0, 1.25), ("n-fgsm", 2.0, 1.0)])
def test_one_step_methods(make_tiny, make_data, name: str, start: float, step: float) -> None:
    """x' of the trainer against the step written out, with the same random start."""
    model, (x, y), eps = make_tiny(torch.float64), make_data(6, torch.float64), 0.1
    trainer = Trainer(model, name, eps=eps, seed=5)
    generator = torch.Generator().manual_seed(derive(5, "start", 0))
    noise = torch.empty(6, 64, dtype=torch.float64).uniform_(generator=generator).view_as(x)
    z = (x + start * eps * (2 * noise - 1)).clamp(0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(model, z, y).sum(), z)
    x_adv = z.detach() + step * eps * slope.sign()
    if name == "fast-at":
        x_adv = torch.minimum(torch.maximum(x_adv, x - eps), x + eps)
    x_adv = x_adv.clamp(0, 1)
    assert ((x_adv - x).abs().max() > 2 * eps) == (name == "n-fgsm")
    expected = cross_entropy(model, x_adv, y).mean().item()
    assert trainer.training_step(x, y).loss.item() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(InputError, match='norm="linf"'):
        Trainer(model, name, eps=eps, norm="l2")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_outer_loss_and_gradient(make_tiny, setting, name: str, bias: bool) -> None:
    model = make_tiny(torch.float64, bias=bias)
    _, x, x_adv, y = setting
    loss = make(name).loss(Outputs(model, x), Outputs(model, x_adv), y)
    expected = LOSSES[name](model, x, x_adv, y)
    assert torch.allclose(loss, expected, rtol=1e-9)
    ours = torch.autograd.grad(loss.mean(), list(model.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(expected.mean(), list(model.parameters()), allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("name", INNER)
def test_inner_objective(setting, name: str) -> None:
    model, x, x_adv, y = setting
    value = make(name).inner.prepare(Outputs(model, x).detach(), y)(Outputs(model, x_adv))
    assert torch.allclose(value, INNER[name](model, x, x_adv, y), rtol=1e-9)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"mart", "input-gradient", "r2et"}))
def test_at_x_every_loss_is_the_cross_entropy(setting, name: str) -> None:
    """Why the inner loop may be skipped where eps is 0."""
    model, x, _, y = setting
    clean = Outputs(model, x)
    loss = make(name).loss(clean, clean, y)
    plain = cross_entropy(model, x, y)
    assert torch.allclose(loss, plain, rtol=0, atol=1e-14)
    ours = torch.autograd.grad(loss.mean(), list(model.parameters()))
    theirs = torch.autograd.grad(plain.mean(), list(model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-14)


def test_default_weights_are_the_papers() -> None:
    assert {name: method(name).gamma for name in METHODS} == {
        "normal": None,
        "adv": None,
        "trades": 1.0,
        "ig-norm": 1.0,
        "ig-norm-sum": 1.0,
        "int": 0.01,
        "int-1-class": 0.01,
        "int-adv": 0.01,
        "mart": 5.0,
        "fast-at": None,
        "n-fgsm": None,
        "aat": 1.0,
        "adv-aat": 1.0,
        "input-gradient": 1.0,
        "r2et": 0.1,  # ours
    }


def class_map(model, x: Tensor, y: Tensor) -> Tensor:
    return maps(model, x)[torch.arange(len(y)), y][:, None]


@pytest.mark.parametrize(
    ("make", "formula", "k"),
    [(CAM, class_map, 1), (partial(IntegratedGradients, steps=5), integrated, 6)],
)
def test_r2et_takes_interpreters(setting, make: Callable, formula: Callable, k: int) -> None:
    model, x, _, y = setting
    at = (formula(model, z, y).unbind() for z in (x, beside(model, x, y)))
    expected = cross_entropy(model, x, y) + GAMMA * ranking_penalty(*at, k)
    with unwatched():  # the point beside x may lie outside [0, 1]
        found = method("r2et", GAMMA, interpreter=make).loss(Outputs(model, x), None, y)
    assert torch.allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("itn",), "did you mean 'int'"),
        (("xyzzy",), "known names are normal, adv"),
        (("int", -0.1), "gamma must be a finite number"),
        (("int", float("nan")), "gamma must be a finite number"),
        (("adv", 0.1), "no regulariser to weigh"),
    ],
)
def test_bad_methods_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method(*arguments)
