"""The Int family with other interpreters, and with another inner maximisation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastinterp import InputError, IntTrainer, TRADESTrainer
from fastinterp.attacks import Outputs
from fastinterp.interpreters import CAM, GradCAM, Gradient, IntegratedGradients, Repr
from fastinterp.training import load_recipe, method, run_recipe

GAMMA = 0.37
INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


def integrated(model, x: Tensor) -> Tensor:
    """Eq. (2) in 3 steps from black, each class by itself: [N, C, ...]."""
    maps = []
    for c in range(4):
        total = torch.zeros_like(x)
        for k in range(1, 4):
            point = (x * k / 3).detach().requires_grad_()
            (grad,) = torch.autograd.grad(model(point)[:, c].sum(), point, create_graph=True)
            total = total + grad
        maps.append(x.detach() * total / 3)
    return torch.stack(maps, dim=1)


def class_activation(model, x: Tensor) -> Tensor:
    """Eq. (1) without its 1/u: [N, C, h, w]."""
    return torch.einsum("ck,nkhw->nchw", model.weight, model.features(x))


def twice_eq8(maps: Tensor, maps_adv: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    s, rows = (maps - maps_adv).abs().flatten(2).sum(2), torch.arange(len(y))
    e = logits.exp()
    others = torch.ones_like(e)
    others[rows, y] = 0
    p = e * others / (e * others).sum(1, keepdim=True)
    return s[rows, y] + (p * s).sum(1)


KINDS = {
    "gradcam": (GradCAM, class_activation),
    "ig": (lambda model: IntegratedGradients(model, steps=3), integrated),
}


@pytest.mark.parametrize("reduction", ["weighted", "1-class"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_against_a_formula(
    make_tiny, make_data, kind: str, reduction: str
) -> None:
    make, maps_of = KINDS[kind]
    model = make_tiny(torch.float64)
    x, y = make_data(6, torch.float64)
    noise = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    z = (x + 0.2 * (noise - 0.5)).clamp(0, 1)
    name = "int" if reduction == "weighted" else "int-1-class"
    ours = method(name, GAMMA, interpreter=make).loss(Outputs(model, x), Outputs(model, z), y)
    maps, maps_adv = maps_of(model, x), maps_of(model, z)
    if reduction == "weighted":
        d = twice_eq8(maps, maps_adv, model(z), y)
    else:
        d = (maps - maps_adv).abs().flatten(2).sum(2)[torch.arange(6), y]
    theirs = F.cross_entropy(model(x), y, reduction="none") + GAMMA * d
    assert torch.allclose(ours, theirs, rtol=1e-10)
    parameters = list(model.parameters())
    got = torch.autograd.grad(ours.mean(), parameters)
    wanted = torch.autograd.grad(theirs.mean(), parameters)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_the_inner_gradient_against_a_formula(make_tiny, make_data) -> None:
    model = make_tiny(torch.float64)
    x, y = make_data(4, torch.float64)
    z = (x * 0.9 + 0.03).requires_grad_()
    climbed = method("int", interpreter=lambda m: IntegratedGradients(m, steps=3)).inner
    (got,) = torch.autograd.grad(
        climbed.prepare(Outputs(model, x).detach(), y)(Outputs(model, z)).sum(), z
    )
    maps = integrated(model, x).detach()

    def value(z: Tensor) -> float:
        return twice_eq8(maps, integrated(model, z), model(z), y).sum().item()

    with torch.no_grad():
        for index in [(0, 0, 1, 2), (3, 0, 6, 5)]:
            step = torch.zeros_like(z)
            step[index] = 1e-5
            with torch.enable_grad():
                expected = (value(z.detach() + step) - value(z.detach() - step)) / 2e-5
            assert float(got[index]) == pytest.approx(expected, rel=1e-4)


def test_gradcam_is_cam_here(make_tiny, make_data) -> None:
    """GradCAM's maps are those of CAM on a linear head; CAM by name is the fused op."""
    batch = make_data(8, torch.float64)
    losses = [
        IntTrainer(make_tiny(torch.float64), gamma=1.0, interpreter=kind, **INNER)
        .training_step(*batch)
        .loss
        for kind in (None, CAM, GradCAM)
    ]
    assert torch.equal(losses[0], losses[1])
    assert torch.allclose(losses[0], losses[2], rtol=1e-9)


@pytest.mark.parametrize("kind", [GradCAM, lambda m: IntegratedGradients(m, steps=2), Gradient])
def test_the_loss_falls(make_tiny, make_data, kind) -> None:
    trainer = IntTrainer(make_tiny(), lr=0.02, interpreter=kind, **INNER)
    history = trainer.fit(make_data(32), epochs=12, batch_size=16, progress=False)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert "interpreter" in trainer.settings


def test_an_inner_loop_on_the_cross_entropy(make_tiny, make_data) -> None:
    """Int2, written out: PGD on the cross-entropy, then cross-entropy at x + gamma D at x'."""
    x, y = make_data(8, torch.float64)
    model, twin = make_tiny(torch.float64), make_tiny(torch.float64)
    trainer = IntTrainer(model, gamma=GAMMA, inner="cross-entropy", random_start=False, **INNER)
    loss = trainer.training_step(x, y).loss
    z = x.clone()
    for _ in range(3):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(twin(z), y), z)
        z = torch.clamp(z.detach() + 0.04 * grad.sign(), x - 0.1, x + 0.1).clamp(0, 1)
    d = twice_eq8(class_activation(twin, x), class_activation(twin, z), twin(z), y)
    expected = F.cross_entropy(twin(x), y) + GAMMA * d.mean()
    assert torch.allclose(loss, expected, rtol=1e-10)
    assert trainer.settings["inner"] == "cross-entropy"
    assert "inner" not in IntTrainer(model).settings


def test_recipes_choose_the_inner_loop() -> None:
    assert load_recipe("mnist-small-int").inner == "discrepancy"
    assert load_recipe("mnist-small-int", ["inner=cross-entropy"]).inner == "cross-entropy"
    with pytest.raises(InputError, match="inner must be one of"):
        load_recipe("mnist-small-int", ["inner=kl"])
    small = {"train_images": 50, "val_images": 0, "epochs": 1, "eps_schedule": ()}
    with pytest.raises(InputError, match="'adv' takes no inner"):
        run_recipe(
            load_recipe("digits-small-adv", small | {"inner": "cross-entropy"}),
            device="cpu",
            progress=False,
        )


def test_interpreters_that_do_not_fit_are_refused(make_tiny, make_data) -> None:
    other = make_tiny()
    with pytest.raises(InputError, match="Repr has none"):
        IntTrainer(make_tiny(), interpreter=Repr, **INNER).training_step(*make_data(4))
    with pytest.raises(InputError, match="same object"):
        trainer = IntTrainer(make_tiny(), interpreter=lambda _: GradCAM(other), **INNER)
        trainer.training_step(*make_data(4))
    with pytest.raises(InputError, match="takes no inner and no interpreter"):
        method("trades", interpreter=GradCAM)
    with pytest.raises(InputError, match="TRADESTrainer has no setting 'interpreter'"):
        TRADESTrainer(make_tiny(), interpreter=GradCAM)
