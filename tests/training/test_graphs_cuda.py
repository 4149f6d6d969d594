"""Training steps captured as CUDA graphs. Skipped, with the reason, where no GPU is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from buffered import NoRecorder, change
from torch import Tensor, nn

from fastinterp import IntTrainer, models
from fastinterp.training import METHODS, Trainer, method
from fastinterp.training.graphs import WARM_UP, GraphedIterations

pytestmark = pytest.mark.cuda
INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}
CAPTURED = WARM_UP + 1  # steps after which the graph exists


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Kernels that repeat bit for bit, in full float32."""
    flags = torch.backends.cudnn
    with flags.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def batches(count: int, size: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.rand((size, 1, 8, 8), generator=generator).cuda(),
            torch.randint(0, 4, (size,), generator=generator).cuda(),
        )
        for _ in range(count)
    ]


def captured(trainer: Trainer) -> int:
    assert trainer._graphs is not None
    return sum(buffers.replay is not None for buffers in trainer._graphs._buffers.values())


def unrecorded(trainer: Trainer) -> Trainer:
    """The same trainer, buffers and optimiser, started kernel by kernel."""
    trainer._graphs = GraphedIterations(NoRecorder())
    return trainer


def assert_close(a: Trainer, b: Trainer, **tolerance: float) -> None:
    for first, second in zip(a.model.parameters(), b.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, **tolerance)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].one_step is None])
def test_replays_do_what_eager_steps_do(make_tiny, name: str) -> None:
    """20 iterations: weights, losses and counts, with eps that grows and a falling rate."""
    settings: dict[str, Any] = {"lr": 1e-3, "lr_milestones": (12,), "seed": 3, "device": "cuda"}
    settings |= {"eps_schedule": (5, 15), **INNER}
    graphed = Trainer(make_tiny(), method(name), **settings)
    eager = unrecorded(Trainer(make_tiny(), method(name), **settings))
    for x, y in batches(20, 16):
        found, expected = graphed.training_step(x, y), eager.training_step(x, y)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-6)
        assert torch.equal(found.clean_correct, expected.clean_correct)
    assert captured(graphed) == (1 if name == "normal" else 2)
    assert_close(graphed, eager, rtol=1e-5, atol=1e-6)
    assert float(graphed.optimizer.param_groups[0]["lr"]) == pytest.approx(1e-4)


def test_replays_and_steps_without_any_of_it(make_tiny) -> None:
    settings: dict[str, Any] = {"lr": 1e-3, "device": "cuda", **INNER}
    graphed = IntTrainer(make_tiny(), **settings)
    plain = IntTrainer(make_tiny(), cuda_graphs=False, **settings)
    assert plain._graphs is None and not plain.optimizer.param_groups[0]["capturable"]
    for x, y in batches(20, 16):
        found, expected = graphed.training_step(x, y), plain.training_step(x, y)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-5)
    assert captured(graphed) == 1


def test_cpu_and_gpu_agree_over_20_iterations() -> None:
    losses = []
    for device in ("cpu", "cuda"):
        trainer = IntTrainer(models.small(1, 4, seed=0), lr=1e-3, device=device, **INNER)
        # The devices draw other random starts; from a ball this small they do not matter.
        change(trainer, eps=0.02, step_size=0.02)
        x, y = batches(1, 32)[0]
        x, y = x.to(device), y.to(device)
        losses.append([float(trainer.training_step(x, y).loss) for _ in range(20)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"channels_last": True}])
@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].one_step is None])
def test_no_step_waits_for_the_gpu(make_tiny, name: str, options: dict) -> None:
    if name == "normal":
        options = {k: v for k, v in options.items() if k != "precision"}
    trainer = Trainer(
        make_tiny(), method(name), eps_schedule=(0, 100), device="cuda", **INNER, **options
    )
    several = batches(CAPTURED + 5, 16)
    for x, y in several[: CAPTURED + 1]:  # the first has eps = 0
        trainer.training_step(x, y)
    assert captured(trainer) == 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [trainer.training_step(x, y) for x, y in several[CAPTURED + 1 :]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len({float(result.loss) for result in results}) == len(results)  # none written over


def test_settings_changed_after_a_capture_take_effect(make_tiny) -> None:
    graphed = IntTrainer(make_tiny(), lr=1e-3, device="cuda", **INNER)
    eager = unrecorded(IntTrainer(make_tiny(), lr=1e-3, device="cuda", **INNER))
    several = batches(CAPTURED + 1, 16)
    changes = [{}, {"lr": 1e-4}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9)}]
    for group in changes:
        for trainer in (graphed, eager):
            trainer.optimizer.param_groups[0].update(group)
            for x, y in several:
                trainer.training_step(x, y)
    assert captured(graphed) == 3  # the learning rate reached the graph that was there
    assert graphed.graph_replays == 3 * 2 + len(several)
    assert_close(graphed, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_the_precision_of_a_graph_is_not_that_of_torch_s_switches(precision: str) -> None:
    losses = []
    for allowed in (False, True):
        torch.backends.cudnn.allow_tf32 = allowed  # the fixture sets it back
        model = models.small(1, 4, seed=0)
        trainer = IntTrainer(model, precision=precision, device="cuda", **INNER)
        results = [trainer.training_step(x, y).loss for x, y in batches(CAPTURED + 1, 16)]
        assert trainer.graph_replays == 2
        losses.append(torch.stack(results))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-7)


def test_an_optimiser_that_no_graph_can_hold(make_tiny) -> None:
    def sgd(parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    graphed = IntTrainer(make_tiny(), optimizer=sgd, device="cuda", **INNER)
    plain = IntTrainer(make_tiny(), optimizer=sgd, device="cuda", cuda_graphs=False, **INNER)
    for x, y in batches(12, 16):
        graphed.training_step(x, y)
        plain.training_step(x, y)
    assert captured(graphed) == 1
    assert_close(graphed, plain, rtol=1e-4, atol=1e-5)


def test_smaller_batches_between_replays(make_tiny) -> None:
    graphed = IntTrainer(make_tiny(), lr=1e-3, device="cuda", **INNER)
    eager = unrecorded(IntTrainer(make_tiny(), lr=1e-3, device="cuda", **INNER))
    for x, y in batches(12, 16):
        for size in (16, 5):
            graphed.training_step(x[:size], y[:size])
            eager.training_step(x[:size], y[:size])
    assert captured(graphed) == 1
    assert_close(graphed, eager, rtol=1e-5, atol=1e-6)


def test_a_model_that_cannot_be_captured(make_tiny) -> None:
    """It looks at values, so that each pass waits for the GPU; all else goes on."""

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1.0 if float(x.detach().sum()) > -1e30 else 2.0)

    def make(looking: bool) -> IntTrainer:
        model = make_tiny()
        if looking:
            model.norm = nn.Sequential(Looking(), nn.Dropout(0.1))
        return IntTrainer(model, lr=1e-3, device="cuda", **INNER)

    several = batches(CAPTURED + 3, 16)
    earlier = make(False)
    earlier.model.norm = nn.Dropout(0.1)  # its graph holds the state of torch's generator
    for x, y in several:
        earlier.training_step(x, y)
    assert captured(earlier) == 1
    trainer = make(True)
    with pytest.warns(RuntimeWarning, match="cannot be captured as a CUDA graph") as seen:
        for x, y in several:
            assert trainer.training_step(x, y).loss.isfinite()
    assert len([w for w in seen if "CUDA graph" in str(w.message)]) == 1
    assert trainer.step == len(several) and captured(trainer) == 0
    torch.cuda.synchronize()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    another = make(False)  # the failure left nothing behind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, y in several:
            another.training_step(x, y)
            assert earlier.training_step(x, y).loss.isfinite()
    assert captured(another) == captured(earlier) == 1


def test_batch_normalisation_and_dropout_under_replays(make_tiny) -> None:
    model = make_tiny(norm=True)
    model.norm = nn.Sequential(model.norm, nn.Dropout(0.5))
    trainer = IntTrainer(model, lr=1e-3, device="cuda", **INNER)
    x, y = batches(1, 16)[0]
    losses = [float(trainer.training_step(x, y).loss) for _ in range(12)]
    assert captured(trainer) == 1
    assert int(model.norm[0].num_batches_tracked) == 24  # at x and at x'
    assert len(set(losses)) == 12


def test_stopped_and_resumed(tmp_path: Path, make_tiny, make_data) -> None:
    settings: dict[str, Any] = {"lr": 1e-3, "device": "cuda", "eps_schedule": (3, 20), **INNER}
    fit: dict[str, Any] = {"batch_size": 16, "progress": False}
    whole = IntTrainer(make_tiny(), **settings)
    expected = whole.fit(make_data(64), 8, **fit)
    IntTrainer(make_tiny(), **settings).fit(make_data(64), 4, out=tmp_path, **fit)
    again = IntTrainer(make_tiny(), **settings)
    history = again.fit(make_data(64), 8, out=tmp_path, resume=True, **fit)
    assert [row["lr"] for row in history] == [row["lr"] for row in expected]
    assert_close(whole, again, rtol=1e-5, atol=1e-6)
    # The state of a GPU serves a CPU.
    on_cpu = IntTrainer(make_tiny(), **(settings | {"device": "cpu"}))
    assert len(on_cpu.fit(make_data(64), 9, out=tmp_path, resume=True, **fit)) == 9


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_options_train(make_tiny, make_data, options: dict) -> None:
    trainer = IntTrainer(make_tiny(), lr=0.02, device="cuda", **INNER, **options)
    history = trainer.fit(make_data(64), 12, 16, progress=False)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert captured(trainer) == 1
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_a_compiled_network_is_captured_too() -> None:
    # Tiny counts its calls, for which the compiler would give it up.
    def make(compile: bool) -> IntTrainer:
        model = models.small(1, 4, seed=0)
        return IntTrainer(model, lr=1e-3, device="cuda", compile=compile, **INNER)

    compiled, plain = make(True), make(False)
    for x, y in batches(8, 16):
        found, expected = compiled.training_step(x, y), plain.training_step(x, y)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-2, atol=1e-3)
    assert captured(compiled) == 1
