from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from fastinterp import InputError, models
from fastinterp.attacks import (
    KL,
    PGD,
    CrossEntropy,
    Discrepancy,
    Gabor,
    IGNorm,
    LinfBall,
    Margin,
    MinimalPGD,
    Outputs,
    ascend,
)


@pytest.fixture
def plain() -> nn.Module:
    """Any classifier will do."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def test_the_call_that_users_know(plain, batch) -> None:
    x, y = batch
    attack = PGD(plain, eps=8 / 255, step_size=2 / 255, steps=10)
    x_adv = attack(x, y)
    assert torch.equal(x_adv, ascend(plain, LinfBall(8 / 255, 2 / 255), CrossEntropy(), x, y, 10))
    assert (x_adv - x).abs().max() <= 8 / 255 + 1e-12
    assert all(p.grad is None for p in plain.parameters())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_norms_lower_the_accuracy(make_tiny, batch, norm: str) -> None:
    model, (x, _) = make_tiny(), batch
    y = model(x).argmax(1)
    eps = {"linf": 0.3, "l2": 1.5, "l1": 8.0}[norm]
    x_adv = PGD(model, eps, eps / 5, 20, norm)(x, y)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    size = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=order, dim=1)
    assert (size <= eps + 1e-9).all()
    assert (model(x_adv).argmax(1) == y).sum() < len(x)


def test_targeted(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    targets = (model(x).argmax(1) + 1) % 4
    x_adv = PGD(model, 0.4, 0.05, 30, targeted=True)(x, targets)
    reach = CrossEntropy().prepare(Outputs(model, x), targets)
    assert (reach(Outputs(model, x_adv)) < reach(Outputs(model, x))).all()
    assert (model(x_adv).argmax(1) == targets).any()


def test_generators(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    seeded = torch.Generator()
    attack = PGD(model, 0.1, 0.03, 3, random_start=True, generator=seeded)
    first, second = attack(x, y), attack(x, y)
    assert not torch.equal(first, second)
    seeded.manual_seed(seeded.initial_seed())
    assert torch.equal(attack(x, y), first)
    fresh = torch.Generator().manual_seed(seeded.initial_seed())
    assert torch.equal(attack(x, y, generator=fresh), first)
    torch.manual_seed(1)
    unseeded = PGD(model, 0.1, 0.03, 3, random_start=True)(x, y)
    torch.manual_seed(1)
    assert torch.equal(PGD(model, 0.1, 0.03, 3, random_start=True)(x, y), unseeded)


def test_restarts_never_help_the_defender(make_tiny, batch) -> None:
    model, (x, _) = make_tiny(), batch
    y = model(x).argmax(1)

    def run(restarts: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        attack = PGD(model, 0.16, 0.05, 2, random_start=True, restarts=restarts, objective=Margin())
        x_adv = attack(x, y, generator=generator)
        return model(x_adv).argmax(1) != y, Margin().prepare(Outputs(model, x), y)(
            Outputs(model, x_adv)
        )

    fooled, value = run(1)
    more_fooled, more_value = run(12)
    assert (more_fooled | ~fooled).all()
    assert (more_value >= value)[~more_fooled].all()
    assert (more_value > value).any()


def test_a_radius_for_each_image(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    eps = torch.linspace(0, 0.3, 7, dtype=torch.float64)
    attack = PGD(model, eps, eps / 4, 6, random_start=True, restarts=3, keep="first_fooled")
    delta = (attack(x, y) - x).flatten(1).abs().amax(dim=1)
    assert (delta <= eps + 1e-12).all()
    assert delta[0] == 0


def test_a_step_size_that_nobody_names_crosses_the_ball(make_tiny) -> None:
    assert PGD(make_tiny()).threat.step_size == pytest.approx(2 / 255)
    assert PGD(make_tiny(), eps=2.0, steps=20, norm="l2").threat.step_size == 0.25
    radii = torch.tensor([0.1, 0.4])
    torch.testing.assert_close(PGD(make_tiny(), radii, steps=10).threat.step_size, radii / 4)
    with pytest.warns(UserWarning, match=r"^PGD: .* 0\.1 is smaller than eps = 0\.3, so"):
        PGD(make_tiny(), 0.3, 0.01)
    with pytest.warns(UserWarning, match=r"eps = 0\.4"):
        PGD(make_tiny(), radii, 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(make_tiny(), 0.3, 0.01, 30)
        PGD(make_tiny(), 0.3, 0.01, 0)


def test_other_objectives(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    x_adv = PGD(model, 0.1, 0.02, 10, objective=Discrepancy(), random_start=True)(x, y)
    value = Discrepancy().prepare(Outputs(model, x), y)
    start = LinfBall(0.1, 0.02).init(x, True, None)
    assert (value(Outputs(model, x_adv)) > value(Outputs(model, start))).all()


@pytest.mark.parametrize("objective", [Discrepancy(), KL(), IGNorm(), 2 * KL() + Discrepancy()])
def test_what_is_flat_at_x_cannot_be_climbed_from_there(make_tiny, batch, objective) -> None:
    model, (x, y) = make_tiny(), batch
    z = x.clone().requires_grad_()
    value = objective.prepare(Outputs(model, x).detach(), y)(Outputs(model, z))
    (grad,) = torch.autograd.grad(value.sum(), z)
    assert value.abs().max() < 1e-14 and grad.abs().max() < 1e-14
    with pytest.raises(InputError, match="random_start=True"):
        PGD(model, objective=objective)
    PGD(model, objective=objective + CrossEntropy())


def test_pixels_a_rounding_error_outside_are_accepted(make_tiny, batch) -> None:
    x, y = batch
    x[0, 0, 0, 0] = -3e-8
    x_adv = PGD(make_tiny(), 0.1, 0.02, 2)(x, y)
    assert x_adv.min() >= 0


def test_integer_labels_of_any_width(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    assert torch.equal(PGD(model, 0.1, 0.02, 2)(x, y.int()), PGD(model, 0.1, 0.02, 2)(x, y))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": math.nan}, "eps must be a finite number"),
        ({"step_size": math.inf}, "step_size must be a finite number"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"norm": "l3"}, "norm must be one of"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"restarts": 2}, "pass random_start=True"),
        ({"keep": "worst"}, "keep must be one of"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
        ({"eps": True}, "eps must be a number"),
        ({"lower": "0"}, "lower must be a number"),
        ({"step_size": 0.0}, "step_size must be above 0 where eps is"),
        ({"step_size": torch.tensor([0.1, 0.0])}, "step_size must be above 0 where eps is"),
        ({"eps": torch.ones(3), "step_size": torch.ones(2)}, "must be of one length"),
        ({"objective": "ce"}, r"objective must be an Objective.*got 'ce'"),
        ({"objective": Margin}, r"got the class; write Margin\(\)"),
        ({"generator": 3}, "generator must be a torch.Generator, got 3.*manual_seed"),
    ],
)
def test_bad_settings_are_refused(make_tiny, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PGD(make_tiny(), **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: ((x * 255).byte(), y), "must be a floating-point tensor.*divide"),
        (lambda x, y: (x * 2 - 0.5, y), r"pixels must lie in \[0, 1\].*inside the model"),
        (lambda x, y: (torch.full_like(x, math.nan), y), "pixels must lie in"),
        (lambda x, y: (x[:, 0, 0, 0], y), r"batch \[N, ...\]"),
        (lambda x, y: (x, y.double()), "labels must be an integer tensor"),
        (lambda x, y: (x, y[:3]), r"labels must have shape \[N\] = \[7\]"),
        (lambda x, y: (x, y[:, None]), "labels must have shape"),
        (lambda x, y: (x, y + 3), r"labels must lie in 0\.\.3"),
        (lambda x, y: (x, y - 1), r"labels must lie in 0\.\.3"),
        (lambda x, y: (x, y.to("meta")), "on the same device"),
    ],
)
@pytest.mark.parametrize("gap", [True, False])
def test_bad_batches_are_refused(make_tiny, plain, batch, change, message: str, gap: bool) -> None:
    with pytest.raises(InputError, match=message):
        PGD(make_tiny() if gap else plain, 0.1, 0.02, 2)(*change(*batch))


def test_steps_of_no_size_are_fine_where_there_is_no_room(make_tiny, batch) -> None:
    x, y = batch
    assert torch.equal(PGD(make_tiny(), eps=0.0, step_size=0.0)(x, y), x)
    PGD(make_tiny(), step_size=0.0, steps=0)
    room = torch.tensor([0.0, 0.1])
    PGD(make_tiny(), eps=room, step_size=room)


@pytest.mark.parametrize("wrong", ["model", None, nn.Linear], ids=str)
def test_what_is_no_model_is_refused(wrong) -> None:
    with pytest.raises(InputError, match=r"model must be .* or a function"):
        PGD(wrong)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_function_from_images_to_logits_is_a_model(make_tiny, batch, norm) -> None:
    model, (x, y) = make_tiny(), batch
    expected = PGD(model, norm=norm)(x, y)
    assert torch.allclose(PGD(lambda z: model(z), norm=norm)(x, y), expected)
    assert all(p.grad is None for p in model.parameters())


def test_models_that_give_no_logits_are_refused(plain, batch) -> None:
    x, y = batch
    with pytest.raises(InputError, match=r"logits \[N, C\] as a tensor, got a tuple"):
        PGD(lambda z: (plain(z),))(x, y)
    with pytest.raises(InputError, match=r"logits \[N, C\] as a tensor, got shape \[1\]"):
        PGD(lambda z: plain(z).sum(1))(x, y)
    with pytest.raises(InputError, match="no gradient by x"):
        PGD(lambda z: plain(z).detach())(x, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[0], y[:1]), r"images \[N, C, H, W\], got .* as x\[None\]"),
        (lambda x, y: (x.float(), y), "same dtype, got torch.float64 and torch.float32"),
        (lambda x, y: (x, y.bool()), "integer tensor such as int64, got torch.bool"),
        (lambda x, y: (x, y.tolist()), "got list; use torch.as_tensor"),
    ],
)
def test_batches_that_a_gap_classifier_does_not_take(make_tiny, batch, change, message) -> None:
    with pytest.raises(InputError, match=message):
        PGD(make_tiny())(*change(*batch))


def test_a_model_for_other_images_is_refused(make_tiny, batch) -> None:
    with pytest.raises(InputError, match=r"PGD: x must be images \[N, 3, H, W\]"):
        PGD(models.small(3, seed=0))(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="model and x must be on the same device"):
        PGD(make_tiny().to("meta"), 0.1, 0.02, 2)(*batch)


@pytest.mark.parametrize(
    ("attack", "wrong", "right"),
    [
        (PGD, "alpha", "step_size"),
        (PGD, "num_steps", "steps"),
        (MinimalPGD, "iters", "steps"),
        (Gabor, "epsilon", "eps"),
    ],
)
def test_a_keyword_of_another_library_gets_a_hint(attack: type, wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"has no setting '{wrong}'; did you mean '{right}'"):
        attack(models.small(seed=0), **{wrong: 1})
