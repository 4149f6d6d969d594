"""The inner loop in bfloat16. The arithmetic is tested on any CPU; units only make it fast."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from resumable import run
from torch import nn

from fastinterp import InputError, IntLoss, IntTrainer, models
from fastinterp.attacks import CrossEntropy, Discrepancy
from fastinterp.interpreters import IntegratedGradients
from fastinterp.training import METHODS, Trainer, load_recipe, method, precision, run_recipe
from fastinterp.training.run import STATE
from fastinterp.training.state import read_record

INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


@pytest.fixture
def units(monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


@pytest.fixture
def no_units(monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    precision._say_float32_serves.cache_clear()


@pytest.mark.parametrize(
    ("objective", "lowest", "mean"),
    # D is a sum of absolute values: where a map hardly moved, rounding decides its sign.
    [(CrossEntropy(), 0.98, 0.995), (Discrepancy(units="release"), 0.9, 0.97)],
)
def test_the_inner_gradient_points_the_same_way(objective, lowest: float, mean: float) -> None:
    model = models.small(seed=0)
    x = torch.rand(20, 1, 28, 28)
    x_adv = (x + 0.3 * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_()
    y = torch.arange(20) % 10
    grads = []
    for kind in ("float32", "bf16"):
        bound = objective.bind(model, x, y, precision=kind)
        tensors, slopes = zip(*bound.slopes(x_adv), strict=True)
        grads.append(torch.autograd.grad(tensors, x_adv, slopes)[0].flatten(1))
    assert [grad.dtype for grad in grads] == [torch.float32] * 2
    cosines = nn.functional.cosine_similarity(*grads, dim=1)
    assert cosines.min() > lowest and cosines.mean() > mean


@pytest.mark.parametrize("name", [name for name in METHODS if name != "normal"])
def test_a_step_is_near_that_in_float32(make_tiny, make_data, units, name: str) -> None:
    x, y = make_data(32)
    losses, weights = [], []
    for kind in ("float32", "bf16"):
        trainer = Trainer(make_tiny(), method(name), lr=1e-3, precision=kind, **INNER)
        result = trainer.training_step(x, y)
        losses.append(result.loss)
        weights.append(nn.utils.parameters_to_vector(trainer.model.parameters()))
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in trainer.model.parameters())
    assert result.loss.dtype == torch.float32
    assert torch.allclose(*losses, rtol=0.01)
    # The optimiser has moved every weight by up to lr, most of them to the same side.
    assert (weights[0] - weights[1]).abs().mean() < 2e-4


def test_only_the_inner_loop_is_narrow(make_tiny, make_data, units) -> None:
    model, seen = make_tiny(), []
    model.head.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    IntTrainer(model, precision="bf16", **INNER).training_step(*make_data(8))
    # At x, three steps, and the outer loss at x'.
    assert seen == [torch.float32, *[torch.bfloat16] * 3, torch.float32]


def test_an_interpreter_that_runs_the_network_itself_stays_wide(make_tiny, make_data, units):
    model, seen = make_tiny(), []
    model.head.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    trainer = IntTrainer(
        model, interpreter=lambda m: IntegratedGradients(m, steps=2), precision="bf16", **INNER
    )
    assert trainer.training_step(*make_data(4)).loss.isfinite()
    assert torch.float32 in seen


def test_without_units_float32_serves_and_one_warning_says_so(make_tiny, make_data, no_units):
    with pytest.warns(RuntimeWarning, match="no units for bfloat16; the inner loop runs in float"):
        trainer = IntTrainer(make_tiny(), precision="bf16", **INNER)
    assert trainer.settings["precision"] == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = IntLoss(precision="bf16", seed=0, **INNER)(make_tiny(), *make_data(8))
    assert torch.equal(loss.detach(), trainer.training_step(*make_data(8)).loss)


def test_int_loss_takes_it_too(make_tiny, make_data, units) -> None:
    trainer = IntTrainer(make_tiny(), precision="bf16", **INNER)
    loss = IntLoss(precision="bf16", **INNER)(make_tiny(), *make_data(8))
    assert torch.equal(loss.detach(), trainer.training_step(*make_data(8)).loss)


def test_unknown_precisions_are_refused(make_tiny) -> None:
    for make in (IntLoss, lambda **k: IntTrainer(make_tiny(), **k)):
        with pytest.raises(InputError, match='precision must be "float32" or "bf16", got \'fp8\''):
            make(precision="fp8")


def test_a_recipe_says_which(tmp_path: Path, units) -> None:
    quick = ["epochs=1", "train_images=40", "val_images=20", "batch_size=20", "steps=2"]
    recipe = load_recipe("digits-small-int", [*quick, "precision=bf16"])
    assert load_recipe("digits-small-int").precision == "float32"
    run_recipe(recipe, out=tmp_path, device="cpu", progress=False)
    assert read_record(tmp_path / STATE)["settings"]["precision"] == "bf16"
    with pytest.raises(InputError, match="precision must be float32 or bf16, got 'half'"):
        load_recipe("digits-small-int", ["precision=half"])


def test_a_run_goes_on_in_its_precision(tmp_path: Path, units) -> None:
    run(tmp_path, epochs=2, precision="bf16")
    with pytest.raises(InputError, match="precision = 'bf16', not 'float32'"):
        run(tmp_path)
    resumed, history = run(tmp_path, precision="bf16")
    whole, expected = run(None, precision="bf16")
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float32


def test_runs_from_before_there_was_a_choice_go_on(tmp_path: Path, monkeypatch) -> None:
    settings = IntTrainer.settings.fget

    def older(self: IntTrainer) -> dict:
        return {k: v for k, v in settings(self).items() if k != "precision"}

    with monkeypatch.context() as patch:
        patch.setattr(IntTrainer, "settings", property(older))
        run(tmp_path, epochs=1)
    assert len(run(tmp_path, epochs=2)[1]) == 2


def test_what_this_machine_has() -> None:
    """The answer is a fact about it; that it is one at all is what is tested."""
    assert precision.has_bf16(torch.device("cpu")) in (True, False)
    assert precision.has_bf16(torch.device("meta")) is False
