"""The inner loop in bfloat16. The arithmetic is tested on any CPU; units only make it fast."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from resumable import run
from torch import nn

from fastinterp import InputError, IntLoss, IntTrainer, NormalTrainer, models
from fastinterp.attacks import CrossEntropy, Discrepancy, Outputs
from fastinterp.interpreters import IntegratedGradients
from fastinterp.models.freeze import freeze
from fastinterp.training import METHODS, Trainer, load_recipe, method, precision, run_recipe
from fastinterp.training.folder import STATE
from fastinterp.training.state import read_state

INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


@pytest.fixture
def units(monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


@pytest.fixture
def no_units(monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    precision._warn_float32.cache_clear()


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
        value = objective.prepare(Outputs(model, x).detach(), y)
        values = value(Outputs(freeze(model, x, kind), x_adv, kind))
        grads.append(torch.autograd.grad(values.sum(), x_adv)[0].flatten(1))
    assert [grad.dtype for grad in grads] == [torch.float32] * 2
    cosines = nn.functional.cosine_similarity(*grads, dim=1)
    assert cosines.min() > lowest and cosines.mean() > mean


@pytest.mark.parametrize("name", [name for name in METHODS if method(name).inner is not None])
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


def switches() -> tuple[object, ...]:
    """What torch says now of TF32, by its older and its newer names."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    older = cudnn.allow_tf32, matmul.allow_tf32, torch.get_float32_matmul_precision()
    return *older, cudnn.conv.fp32_precision, matmul.fp32_precision


EXACT = (False, False, "highest", "ieee", "ieee")
TF32 = (True, True, "high", "tf32", "tf32")


def watch(model: nn.Module) -> list[tuple[object, ...]]:
    """Notes torch's switches at each pass of the network from now on, forward and back."""
    seen: list[tuple[object, ...]] = []

    def note(module: nn.Module, inputs: object, out: torch.Tensor) -> None:
        seen.append(switches())
        if out.requires_grad:
            out.register_hook(lambda grad: seen.append(switches()))

    model.head.register_forward_hook(note)
    return seen


@pytest.mark.parametrize(("kind", "on"), [("float32", EXACT), ("tf32", TF32), ("bf16", EXACT)])
def test_convolutions_are_as_the_precision_says_in_all_passes(
    make_tiny, make_data, units, kind: str, on: tuple
) -> None:
    before = switches()
    model = make_tiny()
    seen = watch(model)
    trainer = IntTrainer(model, precision=kind, **INNER)
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(switches()))
    trainer.training_step(*make_data(8))
    assert len(seen) == 2 * 5 + 1  # at x, three steps, at x'; the optimiser
    assert set(seen) == {on}
    assert switches() == before


def test_int_loss_leaves_the_backward_pass_to_its_caller(make_tiny, make_data) -> None:
    before = switches()
    model = make_tiny()
    seen = watch(model)
    loss = IntLoss(precision="tf32", **INNER)(model, *make_data(8))
    assert set(seen) == {TF32} and switches() == before
    seen.clear()
    loss.backward()
    assert set(seen) == {before}


def test_tf32_is_float32_on_a_cpu(make_tiny, make_data) -> None:
    losses = []
    for kind in ("float32", "tf32"):
        trainer = IntTrainer(make_tiny(), precision=kind, lr=0.01, **INNER)
        assert trainer.settings["precision"] == kind
        losses.append(torch.stack([trainer.training_step(*make_data(8)).loss for _ in range(3)]))
    assert torch.equal(*losses)


def test_val_accuracy_is_taken_in_float32(make_tiny, make_data) -> None:
    data = make_data(16)
    model, seen = make_tiny(), []

    def note(*_: object) -> None:
        seen.append((switches(), torch.is_grad_enabled()))

    def attack(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        note()
        return x

    trainer = IntTrainer(model, precision="tf32", **INNER)
    model.head.register_forward_hook(note)
    trainer.fit(data, 1, 8, val_data=data, val_attack=attack, progress=False)
    # The attack, and the passes at x and at x'; all others are those of training.
    assert seen[-3:] == [(EXACT, True), (EXACT, False), (EXACT, False)]
    assert {on for on, _ in seen[:-3]} == {TF32}


def test_int_loss_takes_it_too(make_tiny, make_data, units) -> None:
    trainer = IntTrainer(make_tiny(), precision="bf16", **INNER)
    loss = IntLoss(precision="bf16", **INNER)(make_tiny(), *make_data(8))
    assert torch.equal(loss.detach(), trainer.training_step(*make_data(8)).loss)


def test_a_recipe_says_which(tmp_path: Path, units) -> None:
    quick = ["epochs=1", "train_images=40", "val_images=20", "batch_size=20", "steps=2"]
    recipe = load_recipe("digits-small-int", [*quick, "precision=bf16"])
    assert load_recipe("digits-small-int").precision == "float32"
    run_recipe(recipe, out=tmp_path, device="cpu", progress=False)
    assert read_state(tmp_path / STATE).record["settings"]["precision"] == "bf16"
    with pytest.raises(InputError, match=r"precision must be one of .*, got 'half'"):
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


@pytest.mark.parametrize("kind", [IntTrainer, NormalTrainer])
def test_runs_from_before_there_was_a_choice_go_on(
    tmp_path: Path, monkeypatch, make_tiny, make_data, kind: type[Trainer]
) -> None:
    settings = Trainer.settings.fget

    def older(self: Trainer) -> dict:
        return {k: v for k, v in settings(self).items() if k not in ("precision", "norm")}

    def go(epochs: int, **options: str) -> list[dict]:
        fit = {"out": tmp_path, "resume": True, "progress": False}
        return kind(make_tiny(), **options).fit(make_data(16), epochs, 8, **fit)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "settings", property(older))
        go(1)
    with pytest.raises(InputError, match="precision = 'float32', not 'tf32'"):
        go(2, precision="tf32")
    assert len(go(2)) == 2


def test_what_this_machine_has() -> None:
    """The answer is a fact about it; that it is one at all is what is tested."""
    assert precision.has_bf16(torch.device("cpu")) in (True, False)
    assert precision.has_bf16(torch.device("meta")) is False
