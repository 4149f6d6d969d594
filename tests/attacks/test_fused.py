"""Attacks whose steps run in one launch, by the GPU's kernel on a CPU, against their steps one by
one."""

from __future__ import annotations

import pytest
import torch
from support import block_op, needs_extension
from torch import Tensor

from fastinterp.attacks import (
    APGD,
    KL,
    PGD,
    CrossEntropy,
    Discrepancy,
    Margin,
    Objective,
    SoftSignBall,
    ascend,
)
from fastinterp.attacks.threats import LinfBall, Threat
from fastinterp.models import small
from fastinterp.models.freeze import convolutions, fold
from fastinterp.ops import climb as op
from fastinterp.training import IntTrainer
from fastinterp.training.graphs import DrawnBall

pytestmark = needs_extension
SERVED = [
    CrossEntropy(),
    CrossEntropy(targeted=True),
    KL(),
    Discrepancy(),
    Discrepancy("1-class", units="release"),
    CrossEntropy() + 0.01 * Discrepancy(units="release") + 0.5 * KL(),
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whole climbs on a CPU, by the GPU's kernel; the list grows with each."""
    found: list[str] = []

    def native(name: str):
        if name == "climb":
            found.append(name)
        return block_op(name)

    monkeypatch.setattr(op, "available", lambda x: x.dtype == torch.float32)
    monkeypatch.setattr(op, "_native", native)
    return found


@pytest.fixture
def problem() -> tuple[torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = small(seed=0)
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.normal_(std=0.1)
    return model, torch.rand(3, 1, 16, 12), torch.randint(10, (3,))


def agree(found: Tensor, expected: Tensor) -> bool:
    """Almost all pixels: a sign that rounding turns moves one pixel elsewhere."""
    return found.shape == expected.shape and bool(
        ((found - expected).abs() < 1e-5).double().mean() > 0.97
    )


@pytest.mark.parametrize("objective", SERVED, ids=str)
def test_it_takes_the_same_steps(objective: Objective, problem, launches, monkeypatch) -> None:
    model, x, y = problem
    attack = PGD(model, 0.2, 0.05, 8, random_start=True, objective=objective)
    found = attack(x, y, torch.Generator().manual_seed(1))
    seeded = attack(x, y, seeds=[1, 2, 3])
    assert len(launches) == 2
    monkeypatch.setattr(op, "available", lambda x: False)
    assert agree(found, attack(x, y, torch.Generator().manual_seed(1)))
    assert agree(seeded, attack(x, y, seeds=[1, 2, 3]))
    assert len(launches) == 2


@pytest.mark.parametrize(
    "threat",
    [
        LinfBall(0.1, 0.02),
        LinfBall(torch.tensor([0.1, 0.2, 0.0]), torch.tensor(0.02), 0.1, 0.9),
        LinfBall(0.1, 0.02, share=(1, 5)),
        DrawnBall(torch.tensor([0.1]), 0.02, given=torch.linspace(0, 0.999, 576).view(3, 192)),
    ],
    ids=["numbers", "tensors", "share", "drawn"],
)
@pytest.mark.parametrize("random_start", [True, False])
def test_starts_and_radii(
    threat: Threat, random_start: bool, problem, launches, monkeypatch
) -> None:
    model, x, y = problem

    def run(**changes) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        settings = {"random_start": random_start, "generator": generator} | changes
        return ascend(model, threat, CrossEntropy(), x.clamp(0.1, 0.9), y, 3, **settings)

    start = (x + 0.01).clamp(0.1, 0.9)
    found, started = run(), run(start=start)
    assert len(launches) == 2
    monkeypatch.setattr(op, "available", lambda x: False)
    assert agree(found, run()) and agree(started, run(start=start))


def test_elsewhere_steps_run_one_by_one(problem, launches) -> None:
    model, x, y = problem
    PGD(model, 0.1, 0.05, 2, objective=Margin())(x, y)
    PGD(model, 0.1, 0.05, 2, objective=torch.ones(3) * CrossEntropy())(x, y)
    PGD(model, 0.1, 0.05, 2, keep="best")(x, y)
    PGD(model, 1.0, 0.5, 2, norm="l2")(x, y)
    PGD(model, 0.1, 0.05, 2, objective=Discrepancy() + Discrepancy("1-class"), random_start=True)(
        x, y
    )
    APGD(model, 0.1, steps=2)(x, y)
    PGD(model.double(), 0.1, 0.05, 2)(x.double(), y)
    model.float()
    ascend(model, SoftSignBall(0.1, 0.05), CrossEntropy(), x, y, 2)
    ascend(model, LinfBall(0.1, 0.05), CrossEntropy(), x, y, 2, precision="bf16")
    model.layers[0].register_forward_hook(lambda *_: None)
    PGD(model, 0.1, 0.05, 2)(x, y)
    assert not launches


def test_gradients_that_are_no_numbers_are_found(problem, launches) -> None:
    model, x, y = problem
    with torch.no_grad():
        model.layers[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        PGD(model, 0.1, 0.05, 2)(x, y)
    assert launches


def test_training_uses_it(problem, launches, monkeypatch) -> None:
    _, x, y = problem

    def losses() -> list[float]:
        trainer = IntTrainer(small(seed=0), eps=0.1, steps=3, step_size=0.05, device="cpu")
        return [float(trainer.training_step(x, y).loss) for _ in range(2)]

    found = losses()
    assert len(launches) == 2
    monkeypatch.setattr(op, "available", lambda x: False)
    assert found == pytest.approx(losses(), rel=1e-4)


def test_folded_networks_of_the_recipes_fit(launches) -> None:
    for channels, size, needs in ((1, 28, "maps"), (1, 28, "logits"), (3, 32, "maps")):
        model, x = small(channels, seed=0), torch.rand(1, channels, size, size)
        folded = fold(model, needs, x)
        assert op.fits(x, convolutions(folded, (size, size)))
