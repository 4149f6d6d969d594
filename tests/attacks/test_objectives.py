"""Objectives against formulas written out in numpy, float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import (
    DLR,
    KL,
    Capped,
    CrossEntropy,
    Discrepancy,
    DLRTowards,
    IGNorm,
    MapDiscrepancy,
    MapDistance,
    Margin,
    MarginTowards,
    Objective,
    Outputs,
    TopK,
)
from fastinterp.interpreters import CAM, GradCAM


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Numbers:
    """Everything the formulas need, as numpy arrays."""

    def __init__(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            self.a, self.b = model.features(x).numpy(), model.features(x_adv).numpy()
            self.f, self.g = model(x).numpy(), model(x_adv).numpy()
        self.w, self.y = model.weight.detach().numpy(), y.numpy()

    def each(self, function: Callable[[int], float]) -> np.ndarray:
        return np.array([function(n) for n in range(len(self.y))])


def cross_entropy(s: Numbers) -> np.ndarray:
    return s.each(lambda n: -np.log(softmax(s.g[n])[s.y[n]]))


def margin(s: Numbers) -> np.ndarray:
    return s.each(lambda n: np.delete(s.g[n], s.y[n]).max() - s.g[n, s.y[n]])


def towards(s: Numbers, rank: int) -> np.ndarray:
    """The logit of the rank-th likeliest wrong class at x, less that of the true one, at x'."""

    def one(n: int) -> float:
        wrong = [c for c in np.argsort(-s.f[n]) if c != s.y[n]]
        return s.g[n, wrong[rank - 1]] - s.g[n, s.y[n]]

    return s.each(one)


def dlr(s: Numbers) -> np.ndarray:
    top = -np.sort(-s.g, axis=1)
    return margin(s) / (top[:, 0] - top[:, 2])


def dlr_towards(s: Numbers, rank: int) -> np.ndarray:
    top = -np.sort(-s.g, axis=1)
    return towards(s, rank) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2)


def kl(s: Numbers) -> np.ndarray:
    p, q = softmax(s.f), softmax(s.g)
    return (p * np.log(p / q)).sum(axis=1)


def map_distances(s: Numbers, n: int) -> np.ndarray:
    """|| L(x, c) - L(x', c) ||_1 for each class, maps as in the authors' programs: no 1/u."""
    difference = np.einsum("ck,khw->chw", s.w, s.a[n]) - np.einsum("ck,khw->chw", s.w, s.b[n])
    return np.abs(difference).sum(axis=(1, 2))


def release(s: Numbers) -> np.ndarray:
    """Both terms at full weight; the others weighted by the softmax at x' among themselves."""

    def one(n: int) -> float:
        t, d = s.y[n], map_distances(s, n)
        return d[t] + (softmax(np.delete(s.g[n], t)) * np.delete(d, t)).sum()

    return s.each(one)


def release_one_class(s: Numbers) -> np.ndarray:
    return s.each(lambda n: map_distances(s, n)[s.y[n]])


U = 9  # positions of the tiny network's maps
CASES: dict[str, tuple[Objective, Callable[[Numbers], np.ndarray]]] = {
    "cross-entropy": (CrossEntropy(), cross_entropy),
    "cross-entropy targeted": (CrossEntropy(targeted=True), lambda s: -cross_entropy(s)),
    "margin": (Margin(), margin),
    "margin targeted": (Margin(targeted=True), lambda s: -margin(s)),
    "margin towards the likeliest": (MarginTowards(), lambda s: towards(s, 1)),
    "margin towards the third": (MarginTowards(3), lambda s: towards(s, 3)),
    "DLR": (DLR(), dlr),
    "DLR targeted": (DLR(targeted=True), lambda s: -dlr(s)),
    "DLR towards the second": (DLRTowards(2), lambda s: dlr_towards(s, 2)),
    "kl": (KL(), kl),
    "discrepancy": (Discrepancy(), lambda s: release(s) / (2 * U)),
    "discrepancy release": (Discrepancy(units="release"), release),
    "1-class": (Discrepancy("1-class"), lambda s: release_one_class(s) / U),
    "1-class release": (Discrepancy("1-class", units="release"), release_one_class),
    "sum": (
        CrossEntropy() + 0.3 * Discrepancy(units="release"),
        lambda s: cross_entropy(s) + 0.3 * release(s),
    ),
    "negative": (-Margin(), lambda s: -margin(s)),
}


def prepared(
    objective: Objective, model: nn.Module, x: Tensor, y: Tensor
) -> Callable[[Tensor], Tensor]:
    """The objective as a function of x'."""
    value = objective.prepare(Outputs(model, x).detach(), y)
    return lambda x_adv: value(Outputs(model, x_adv))


@pytest.fixture
def setting(make_tiny, batch) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    x, y = batch
    return make_tiny(), x, (x + 0.2 * torch.randn_like(x)).clamp(0, 1), y


@pytest.mark.parametrize("name", CASES)
def test_value(name: str, setting) -> None:
    model, x, x_adv, y = setting
    objective, formula = CASES[name]
    value = prepared(objective, model, x, y)(x_adv)
    assert value.shape == (len(x),)
    assert np.allclose(value.detach(), formula(Numbers(model, x, x_adv, y)), rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradient_against_finite_differences(name: str, setting) -> None:
    model, x, x_adv, y = setting
    start = x_adv[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(prepared(CASES[name][0], model, x[:2], y[:2]), (start,))


@pytest.mark.parametrize("name", CASES)
def test_rows(name: str, setting) -> None:
    model, x, x_adv, y = setting
    index = torch.tensor([4, 1])
    objective = torch.arange(7) * CASES[name][0]
    picked = prepared(objective.rows(index), model, x[index], y[index])(x_adv[index])
    assert torch.allclose(picked, prepared(objective, model, x, y)(x_adv)[index])


def test_clean_quantities_are_computed_once_and_are_constants(setting) -> None:
    model, x, x_adv, y = setting
    model.calls = 0
    value_at = prepared(CrossEntropy() + KL() + Discrepancy(), model, x, y)
    assert model.calls == 1
    value = value_at(x_adv)
    assert model.calls == 2
    # The classifier still acts through the logits of x', but in D it is a constant.
    only_d = prepared(Discrepancy("1-class"), model, x, y)(x_adv)
    assert torch.autograd.grad(only_d.sum(), model.weight, allow_unused=True) == (None,)
    assert torch.autograd.grad(value.sum(), model.weight)[0] is not None


def test_a_pass_made_before_serves(setting) -> None:
    model, x, x_adv, y = setting
    clean = Outputs(model, x)
    _ = clean.logits
    model.calls = 0
    value = (KL() + Discrepancy()).prepare(clean.detach(), y)
    assert model.calls == 0
    expected = prepared(KL() + Discrepancy(), model, x, y)(x_adv)
    assert torch.equal(value(Outputs(model, x_adv)), expected)


def test_margin_says_who_is_fooled(setting) -> None:
    model, x, _, y = setting
    value = prepared(Margin(), model, x, y)(x)
    assert torch.equal(value > 0, model(x).argmax(dim=1) != y)
    assert 0 < int((value > 0).sum()) < len(x)


def test_dlr_sees_no_scale_and_no_shift(setting) -> None:
    model, x, x_adv, y = setting

    def other(z: Tensor) -> Tensor:
        return 50 * model(z) - 3

    for objective in (DLR(), DLR(targeted=True), DLRTowards()):
        value, expected = (prepared(objective, net, x, y)(x_adv) for net in (other, model))
        assert torch.allclose(value, expected, rtol=1e-9)


def test_ranks_beyond_the_last_class_aim_at_the_last(setting) -> None:
    model, x, x_adv, y = setting
    value, expected = (prepared(MarginTowards(k), model, x, y)(x_adv) for k in (9, 3))
    assert torch.equal(value, expected)


@pytest.mark.parametrize(("objective", "classes"), [(DLR(), 2), (DLRTowards(), 3)])
def test_dlr_needs_enough_classes(setting, objective: Objective, classes: int) -> None:
    model, x, x_adv, y = setting
    with pytest.raises(InputError, match=rf"needs at least {classes + 1} classes, got {classes}"):
        prepared(objective, lambda z: model(z)[:, :classes], x, y % 2)(x_adv)


def ig_norm(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, steps: int) -> Tensor:
    """One image, one point of the path at a time."""
    rows = []
    for image, image_adv, label in zip(x, x_adv, y, strict=True):
        total = torch.zeros_like(image)
        for k in range(1, steps + 1):
            point = (image + (image_adv - image) * k / steps).detach().requires_grad_()
            loss = -torch.log_softmax(model(point[None])[0], dim=0)[label]
            total += torch.autograd.grad(loss, point)[0]
        rows.append(((image_adv - image) * total / steps).abs().sum())
    return torch.stack(rows)


def test_ig_norm_value(setting) -> None:
    model, x, x_adv, y = setting
    expected = ig_norm(model, x, x_adv, y, 5)
    assert torch.allclose(prepared(IGNorm(), model, x, y)(x_adv), expected, rtol=1e-10)
    in_release_units = prepared(IGNorm(units="release"), model, x, y)(x_adv)
    assert torch.allclose(in_release_units, expected / len(x), rtol=1e-10)


def test_ig_norm_is_complete_in_the_limit(setting) -> None:
    """Where every attribution has one sign, R is the growth of the loss, by the chain rule."""
    model, x, _, y = setting
    x = x[:1]
    loss = prepared(CrossEntropy(), model, x, y[:1])
    (grad,) = torch.autograd.grad(loss(x.requires_grad_()).sum(), x)
    x_adv = (x + 1e-3 * grad.sign()).detach()
    growth = (loss(x_adv) - loss(x.detach())).item()
    measured = prepared(IGNorm(200), model, x.detach(), y[:1])(x_adv).item()
    assert measured == pytest.approx(growth, rel=1e-3)


def test_ig_norm_gradients_against_finite_differences(setting) -> None:
    model, x, x_adv, y = setting
    value_at = prepared(IGNorm(), model, x[:2], y[:2])
    start = x_adv[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(value_at, (start,))

    def by_weight(weight: Tensor) -> Tensor:
        with torch.no_grad():
            model.head.weight.copy_(weight)
        value = value_at(x_adv[:2]).sum()
        return torch.autograd.grad(value, model.head.weight)[0], value.detach()

    base = model.head.weight.detach().clone()
    grad, _ = by_weight(base)
    direction = torch.randn_like(base)
    h = 1e-6
    rise = by_weight(base + h * direction)[1] - by_weight(base - h * direction)[1]
    assert (grad * direction).sum().item() == pytest.approx(rise.item() / (2 * h), rel=1e-5)


def test_ig_norm_without_gradients_around(setting) -> None:
    model, x, x_adv, y = setting
    with torch.no_grad():
        value = prepared(IGNorm(), model, x, y)(x_adv)
    assert torch.allclose(value, ig_norm(model, x, x_adv, y, 5))


def test_discrepancy_needs_feature_maps(batch) -> None:
    x, y = batch
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()
    with pytest.raises(InputError, match=r"GapClassifier, got Sequential.*wrap"):
        prepared(Discrepancy(), plain, x, y)
    assert prepared(CrossEntropy(), plain, x, y)(x).shape == (7,)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="reduction must be"):
        Discrepancy("2-class")
    with pytest.raises(InputError, match="units must be"):
        Discrepancy(units="paperr")
    with pytest.raises(InputError, match="steps must be at least 1"):
        IGNorm(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cam: MapDiscrepancy(GradCAM, "foo"), "reduction must be"),
        (lambda cam: MapDiscrepancy(GradCAM, units="foo"), "units must be"),
        (lambda cam: MapDiscrepancy(cam), "a function that makes an interpreter"),
        (lambda cam: MapDiscrepancy("gradcam"), "a function that makes an interpreter"),
        (lambda cam: MapDistance(cam, None, 3), "p must be one of 1, 2"),
        (lambda cam: MapDistance(cam, None, squared=True), "squared is for p = 2"),
        (lambda cam: TopK(cam, 1.5), "k must be a whole number"),
        (lambda cam: TopK(cam, 0), "k must be at least 1"),
        (lambda cam: MarginTowards(0), "MarginTowards: rank must be at least 1"),
        (lambda cam: DLRTowards(1.5), "DLRTowards: rank must be a whole number"),
        (lambda cam: IGNorm("5"), "steps must be a whole number"),
        (lambda cam: Capped(Margin, 0.0), r"write Margin\(\)"),
        (lambda cam: Capped(Margin(), None), "cap must be a number"),
        (lambda cam: Discrepancy() * "a", "weight must be a number or a tensor"),
        (lambda cam: True * KL(), "weight must be a number or a tensor"),
        (lambda cam: KL() * torch.ones(2, 2), r"weight must be .* got shape \[2, 2\]"),
        (lambda cam: CrossEntropy() + 1, "must be an Objective"),
    ],
)
def test_settings_that_mean_nothing_are_refused_at_once(make_tiny, make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(CAM(make_tiny()))
