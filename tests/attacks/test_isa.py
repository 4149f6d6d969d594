"""ISA against a program for one image, written out with the formulas of eqs. (1), (3) and (6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp import InputError
from fastinterp.attacks import ISA, Bisection, SoftSignBall
from fastinterp.interpreters import CAM, GradCAM, GradCAMPlusPlus, IntegratedGradients, Repr
from fastinterp.interpreters.distance import interpretability_discrepancy

TARGETS = torch.tensor([1, 2, 3, 0, 2, 3, 0])
RADII = Bisection(0.05, upper=1.0, rounds=6)
WEIGHTS = Bisection(0.01, upper=20.0, rounds=8)


@pytest.fixture
def problem(make_tiny, batch):
    """A network that knows several classes and whose prediction small changes turn."""
    model, (x, y) = make_tiny(), batch
    with torch.no_grad():
        model.classifier.weight.mul_(30)
        model.classifier.bias -= model(x).mean(0)
    return model, x, y


class OneImage:
    """One image, its classes and a network; CAMs without the 1/u of eq. (1)."""

    def __init__(self, model, x: Tensor, y: int, target: int, norm: str, classes: str) -> None:
        self.model, self.x, self.target, self.norm = model, x, target, norm
        self.classes = {"1-class": [y], "2-class": [y, target], "all-class": [0, 1, 2, 3]}[classes]
        self.clean = self.maps(model.features(x[None]).detach())

    def maps(self, features: Tensor) -> Tensor:
        return torch.einsum("ck,khw->chw", self.model.weight[self.classes], features[0])

    def climb(self, eps: float, weight: float) -> tuple[Tensor, bool]:
        z = self.x.clone()
        for _ in range(10):
            z.requires_grad_()
            features = self.model.features(z[None])
            change = self.maps(features) - self.clean
            power = change.abs() if self.norm == "l1" else change**2
            loss = max(self.lead(self.model.logits(features)), torch.tensor(-0.1))
            loss = loss + weight * power.sum((1, 2)).mean()
            (grad,) = torch.autograd.grad(loss, z) if loss.requires_grad else (torch.zeros_like(z),)
            z = z.detach() - 0.2 * eps * (10 * grad).clamp(-1, 1)
            z = z.clamp(self.x - eps, self.x + eps).clamp(0, 1)
        return z, bool(self.lead(self.model(z[None])) < 0)

    def lead(self, logits: Tensor) -> Tensor:
        others = [i for i in range(4) if i != self.target]
        return logits[0, others].max() - logits[0, self.target]

    def run(self, penalty: float) -> tuple[Tensor, bool, float, float]:
        if self.lead(self.model(self.x[None])) < 0:
            return self.x, True, 0.0, float("nan")
        low, high, eps = RADII.lower, RADII.upper, RADII.start
        done = False
        for _ in range(RADII.rounds):
            if self.climb(eps, 0.0)[1]:
                high, eps, done = eps, (low + eps) / 2, True
            else:
                low, eps = eps, min(2 * eps, (eps + high) / 2)
        if not done:
            return self.x, False, float("inf"), float("nan")
        radius, best = penalty * high, None
        low, high, weight = WEIGHTS.lower, WEIGHTS.upper, WEIGHTS.start
        for _ in range(WEIGHTS.rounds):
            z, success = self.climb(radius, weight)
            if success:
                best, low, weight = z, weight, min(2 * weight, (weight + high) / 2)
            else:
                high, weight = weight, (low + weight) / 2
        if best is None:
            return *self.climb(radius, 0.0), radius, 0.0
        return best, True, radius, low


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("classes", ["1-class", "2-class", "all-class"])
def test_against_a_program_for_one_image(problem, norm, classes) -> None:
    model, x, y = problem
    attack = ISA(model, CAM(model), norm, classes, penalty=1.4, radii=RADII, weights=WEIGHTS)
    found = attack(x, y, TARGETS)
    expected = [
        OneImage(model, *each, norm, classes).run(1.4)
        for each in zip(x, y.tolist(), TARGETS.tolist(), strict=True)
    ]
    x_adv, success, eps, weight = zip(*expected, strict=True)
    assert torch.allclose(found.eps, torch.tensor(eps, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(
        found.weight, torch.tensor(weight, dtype=torch.float64), rtol=1e-9, equal_nan=True
    )
    assert found.success.tolist() == list(success)
    assert torch.allclose(found.x_adv, torch.stack(x_adv), rtol=0, atol=1e-9)
    moved = interpretability_discrepancy(
        CAM(model), x, found.x_adv, y, TARGETS, classes=classes, p=1 if norm == "l1" else 2
    )
    assert torch.allclose(found.discrepancy, moved, atol=1e-12)
    assert len({w for w in weight if w > 0}) > 1, "the test means little without a search"


@pytest.mark.parametrize(
    "make",
    [
        CAM,
        GradCAM,
        GradCAMPlusPlus,
        Repr,
        lambda m: GradCAMPlusPlus(m, "standard"),
        lambda m: IntegratedGradients(m, steps=3),
    ],
)
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_every_interpreter(problem, make, norm) -> None:
    model, x, y = problem
    attack = ISA(model, make(model), norm, radii=RADII, weights=Bisection(0.01, upper=9, rounds=3))
    small = attack.smallest(x, TARGETS)
    found = attack(x, y, TARGETS)
    assert small.success.any() and found.success.any()
    assert torch.equal(found.eps, 1.6 * small.eps)
    assert (model(found.x_adv).argmax(1) == TARGETS)[found.success].all()
    reach = (found.x_adv - x).abs().flatten(1).amax(1)
    assert (reach <= found.eps + 1e-12).all()
    hidden = found.success & (found.eps > 0)
    assert (found.weight[hidden] >= 0).all() and (found.discrepancy[hidden] > 0).all()


def test_hides_better_than_no_weight(problem) -> None:
    model, x, y = problem
    hidden = ISA(model, CAM(model), classes="1-class", weights=WEIGHTS)(x, y, TARGETS)
    never = Bisection(1e-12, upper=1e-11, rounds=1)
    open_ = ISA(model, CAM(model), classes="1-class", weights=never)(x, y, TARGETS)
    both = hidden.success & open_.success & (hidden.weight > 0)
    assert both.sum() >= 3
    assert hidden.discrepancy[both].sum() < 0.95 * open_.discrepancy[both].sum()


@pytest.mark.parametrize("ball", ["l2", "l1"])
def test_other_balls(problem, ball) -> None:
    model, x, y = problem
    attack = ISA(model, CAM(model), ball=ball, radii=Bisection(0.5, upper=36.0))
    found = attack(x, y, TARGETS)
    assert found.success.any()
    order = 2 if ball == "l2" else 1
    assert ((found.x_adv - x).flatten(1).norm(p=order, dim=1) <= found.eps + 1e-9).all()


def test_given_radii_and_images_that_stay_out(problem) -> None:
    model, x, y = problem
    attack = ISA(model, CAM(model))
    eps = torch.tensor([0.0, torch.inf, 0.5, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    found = attack(x, y, TARGETS, eps)
    assert torch.equal(found.eps, eps)
    assert torch.equal(found.x_adv[:2], x[:2])
    assert found.weight[:2].isnan().all() and not found.weight[2:].isnan().any()
    assert torch.equal(found.success[:2], model(x[:2]).argmax(1) == TARGETS[:2])
    assert torch.equal(attack(x, y, TARGETS, 0.5).x_adv[2:], found.x_adv[2:])
    assert attack(x[:0], y[:0], TARGETS[:0]).eps.shape == (0,)


def test_callers_without_autograd_and_modes(problem) -> None:
    model, x, y = problem
    attack = ISA(model, CAM(model))
    expected = attack(x, y, TARGETS)
    model.train()
    with torch.inference_mode():
        found = attack(x.clone(), y.clone(), TARGETS.clone())
    assert torch.equal(found.x_adv, expected.x_adv)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_soft_sign_step() -> None:
    x = torch.full((2, 3), 0.5)
    z = torch.tensor([[0.5, 0.5, 0.6], [0.5, 0.5, 0.5]])
    grad = torch.tensor([[1.0, 0.001, 1.0], [-0.002, 0.0, 5.0]])
    ball = SoftSignBall(torch.tensor([0.1, 0.6]), torch.tensor([0.05, 0.55]), gain=100.0)
    expected = torch.tensor([[0.55, 0.505, 0.6], [0.39, 0.5, 1.0]])
    assert torch.allclose(ball.step(x, z, grad), expected)
    second = ball.rows(torch.tensor([1]))
    assert torch.allclose(second.step(x[1:], z[1:], grad[1:]), expected[1:])
    with pytest.raises(InputError, match="gain"):
        SoftSignBall(0.1, 0.01, gain=0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "linf"},
        {"classes": "3-class"},
        {"penalty": 0.9},
        {"margin": -1.0},
        {"ball": "l0"},
        {"gain": -1.0},
        {"steps": 0},
    ],
)
def test_refused(make_tiny, settings) -> None:
    model = make_tiny()
    with pytest.raises(InputError):
        ISA(model, CAM(model), **settings)


def test_refused_calls(problem, make_tiny) -> None:
    model, x, y = problem
    with pytest.raises(InputError, match="the interpreter must explain the model"):
        ISA(model, CAM(make_tiny()))
    for wrong in ("cam", CAM):
        with pytest.raises(InputError, match=r"must be made of the model, as in CAM\(model\)"):
            ISA(model, wrong)
    attack = ISA(model, CAM(model))
    with pytest.raises(InputError, match="another class than the true one"):
        attack(x, y, y)
    for eps in (-1.0, torch.inf, torch.nan, "0.1", True):
        with pytest.raises(InputError, match="eps must be"):
            attack(x, y, TARGETS, eps)
    with pytest.raises(InputError, match="targets must lie in"):
        attack(x, y, TARGETS + 9)
