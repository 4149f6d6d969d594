"""Iterations on static buffers: what a CUDA graph replays, run by a CPU without the recording."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from buffered import INNER, NoRecorder, assert_same_weights, change, on_buffers
from torch import Tensor, nn

from fastinterp import InputError, IntTrainer, NormalTrainer
from fastinterp.training import METHODS, Recipe, Trainer, method, timing
from fastinterp.training.graphs import MOST_GRAPHS, WARM_UP, GraphedIterations
from fastinterp.training.optimizer import make_capturable, set_lr


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].one_step is None])
@pytest.mark.parametrize("step_inside", [True, False])
def test_the_same_weights_bit_for_bit(make_tiny, make_data, name: str, step_inside: bool) -> None:
    settings = {"lr": 0.01, "seed": 4, **INNER}
    plain = Trainer(make_tiny(), method(name), **settings)
    static = Trainer(make_tiny(), method(name), **settings)
    recorder = on_buffers(static, step_inside)
    x, y = make_data(40)
    for first in range(0, 40, 8):
        batch = (x[first : first + 8], y[first : first + 8])
        expected, found = plain.training_step(*batch), static.training_step(*batch)
        assert torch.equal(expected.loss, found.loss)
        assert torch.equal(expected.clean_correct, found.clean_correct)
        if expected.robust_correct is not None:
            assert torch.equal(expected.robust_correct, found.robust_correct)
    assert_same_weights(plain, static)
    assert (recorder.warm, recorder.recorded, recorder.replayed) == (WARM_UP, 1, 5 - WARM_UP)


def test_schedules_reach_the_buffers(make_tiny, make_data) -> None:
    """eps grows each step within one recording; with eps = 0 there is another one."""
    settings = {"eps_schedule": (5, 15), "lr": 0.01, "lr_milestones": (8,), **INNER}
    plain, static = IntTrainer(make_tiny(), **settings), IntTrainer(make_tiny(), **settings)
    recorder = on_buffers(static)
    for _ in range(20):
        plain.training_step(*make_data(8))
        static.training_step(*make_data(8))
        assert_same_weights(plain, static)
    assert recorder.recorded == 2
    assert static.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_without_an_inner_loop_eps_makes_no_second_recording(make_tiny, make_data) -> None:
    trainer = Trainer(make_tiny(), method("normal"), eps_schedule=(5, 15), **INNER)
    recorder = on_buffers(trainer)
    for _ in range(20):
        trainer.training_step(*make_data(8))
    assert (recorder.warm, recorder.recorded, recorder.replayed) == (WARM_UP, 1, 20 - WARM_UP)


def test_a_whole_run_stopped_and_resumed(tmp_path: Path, make_tiny, make_data) -> None:
    settings = {"eps_schedule": (2, 9), "lr": 0.01, **INNER}
    fit = {"batch_size": 8, "progress": False}
    plain = IntTrainer(make_tiny(), **settings)
    expected = plain.fit(make_data(48), 4, **fit)
    first = IntTrainer(make_tiny(), **settings)
    on_buffers(first)
    first.fit(make_data(48), 2, out=tmp_path, **fit)
    second = IntTrainer(make_tiny(), **settings)
    recorder = on_buffers(second)
    history = second.fit(make_data(48), 4, out=tmp_path, resume=True, **fit)
    assert recorder.recorded == 1
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    assert_same_weights(plain, second)


def test_a_smaller_batch_runs_as_it_is(make_tiny, make_data) -> None:
    trainer = IntTrainer(make_tiny(), **INNER)
    recorder = on_buffers(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WARM_UP + 2):
            trainer.training_step(*make_data(8))
            trainer.training_step(*make_data(3))
    assert (recorder.warm, recorder.replayed) == (WARM_UP, 2)
    assert trainer.step == 2 * (WARM_UP + 2)


def test_other_settings_are_recorded_anew(make_tiny, make_data) -> None:
    def steps(count: int) -> None:
        for _ in range(count):
            trainer.training_step(*make_data(8))

    trainer = IntTrainer(make_tiny(norm=True), **INNER)
    recorder = on_buffers(trainer)
    steps(WARM_UP + 1)
    assert recorder.recorded == 1
    trainer.model.eval()
    steps(WARM_UP + 1)
    assert recorder.recorded == 2
    trainer.model.conv.requires_grad_(False)
    steps(WARM_UP + 1)
    assert recorder.recorded == 3
    change(trainer, steps=1)
    steps(WARM_UP + 1)
    assert recorder.recorded == 4
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())  # replaces its tensors
    steps(WARM_UP + 1)
    assert recorder.recorded == 5
    for count in range(2, 2 + 2 * MOST_GRAPHS):
        change(trainer, steps=count)
        steps(1)
    assert len(trainer._graphs._buffers) == MOST_GRAPHS
    with torch.autocast("cpu", dtype=torch.bfloat16):
        steps(2 * WARM_UP)
    assert recorder.recorded == 5


def test_the_recording_that_is_used_is_kept(make_tiny, make_data) -> None:
    trainer = IntTrainer(make_tiny(), **INNER)
    recorder = on_buffers(trainer)
    for _ in range(WARM_UP):
        trainer.training_step(*make_data(8))
    for another in range(4, 4 + 2 * MOST_GRAPHS):
        for steps in (another, INNER["steps"]):
            change(trainer, steps=steps)
            trainer.training_step(*make_data(8))
    assert recorder.recorded == 1


def test_a_capture_that_fails(make_tiny, make_data) -> None:
    class Refusing(NoRecorder):
        def record(self, run):
            raise RuntimeError("operation not permitted\nwhile a stream is captured")

    plain, trainer = (IntTrainer(make_tiny(), lr=0.01, **INNER) for _ in range(2))
    trainer._graphs = GraphedIterations(Refusing())
    with pytest.warns(RuntimeWarning, match=r"graph \(operation not permitted\); it runs") as seen:
        for _ in range(2 * WARM_UP + 2):
            trainer.training_step(*make_data(8))
    assert len(seen) == 1
    for _ in range(2 * WARM_UP + 2):
        plain.training_step(*make_data(8))
    assert_same_weights(plain, trainer)


def test_graphs_are_for_gpus(make_tiny) -> None:
    assert IntTrainer(make_tiny(), **INNER)._graphs is None
    assert NormalTrainer(make_tiny(), cuda_graphs=False)._graphs is None
    with pytest.raises(InputError, match="cuda_graphs=True needs a network on a CUDA GPU"):
        IntTrainer(make_tiny(), cuda_graphs=True)


def test_what_a_graph_needs_of_an_optimiser(make_tiny) -> None:
    model = make_tiny()
    cpu = torch.device("cpu")
    adam = torch.optim.AdamW(model.parameters(), lr=0.5)
    assert make_capturable(adam, cpu, wanted=True)
    (group,) = adam.param_groups
    assert group["capturable"] and isinstance(group["lr"], Tensor)
    kept = group["lr"]
    set_lr(group, 0.25)
    assert group["lr"] is kept and float(kept) == 0.25
    # A state from a GPU, loaded for a CPU, must not ask for what only a GPU has.
    assert not make_capturable(adam, cpu, wanted=False)
    assert not group["capturable"]
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    assert not make_capturable(sgd, cpu, wanted=True)
    set_lr(sgd.param_groups[0], 0.25)
    assert sgd.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("make", [torch.optim.RMSprop, torch.optim.Adadelta])
def test_loops_that_read_the_rate_on_the_host_stay_outside(make_tiny, make) -> None:
    cpu, parameters = torch.device("cpu"), list(make_tiny().parameters())
    assert make_capturable(make(parameters, lr=0.5), cpu, wanted=True)
    for loops in ({"foreach": False}, {"differentiable": True}):
        optimizer = make(parameters, lr=0.5, **loops)
        assert not make_capturable(optimizer, cpu, wanted=True)
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert make_capturable(torch.optim.Adam(parameters, foreach=False), cpu, wanted=True)


def test_counts_lie_where_they_are_read() -> None:
    """The device meta stands for a GPU."""
    gpu = torch.device("meta")
    parameter = nn.Parameter(torch.ones(3, device=gpu))
    optimizer = torch.optim.NAdam([parameter], lr=0.5)
    names = ("step", "mu_product")
    optimizer.state[parameter] |= {name: torch.tensor(1.0) for name in names}

    def counts_on(device: str) -> bool:
        return all(optimizer.state[parameter][name].device.type == device for name in names)

    assert make_capturable(optimizer, gpu, wanted=True)
    assert counts_on("meta") and optimizer.param_groups[0]["lr"].device == gpu
    optimizer.param_groups[0]["fused"] = True
    assert not make_capturable(optimizer, gpu, wanted=False)
    assert counts_on("meta")  # kernels of all parameters at once read them
    optimizer.param_groups[0]["fused"] = None
    with pytest.raises(NotImplementedError, match="copy out of meta"):  # as far as it can go
        make_capturable(optimizer, gpu, wanted=False)


def test_a_learning_rate_that_is_a_tensor_is_saved(tmp_path: Path, make_tiny, make_data) -> None:
    fit = {"batch_size": 8, "progress": False, "out": tmp_path}

    def adam(parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=torch.tensor(0.25), foreach=False)

    (row,) = NormalTrainer(make_tiny(), optimizer=adam).fit(make_data(16), 1, **fit)
    assert row["lr"] == 0.25
    again = NormalTrainer(make_tiny(), optimizer=adam)
    assert len(again.fit(make_data(16), 2, resume=True, **fit)) == 2


def test_channels_last_changes_the_layout_alone(make_data) -> None:
    from fastinterp import models

    def train(channels_last: bool | None) -> tuple[list[tuple[int, ...]], Tensor]:
        model, strides = models.small(1, 4, seed=0), []
        model.layers[1].register_forward_hook(
            lambda module, inputs, out: strides.append(out.stride())
        )
        trainer = IntTrainer(model, channels_last=channels_last, lr=1e-3, **INNER)
        loss = trainer.training_step(*make_data(8)).loss
        assert all(p.is_contiguous() for p in model.parameters())
        return strides, loss

    rows, planes, default = train(True), train(False), train(None)
    assert rows[0] == default[0] == [(128, 1, 64, 32)] * 5
    assert planes[0] == [(128, 4, 2, 1)] * 5
    assert torch.allclose(rows[1], planes[1], rtol=1e-4)
    assert torch.equal(rows[1], default[1])


def test_restored_moments_lie_as_their_parameters_do(tmp_path: Path, make_tiny, make_data) -> None:
    fit = {"batch_size": 8, "progress": False, "out": tmp_path}

    def make() -> NormalTrainer:
        return NormalTrainer(make_tiny().to(memory_format=torch.channels_last), lr=0.01)

    make().fit(make_data(16), 1, **fit)
    resumed = make()
    resumed.fit(make_data(16), 2, resume=True, **fit)
    whole = make()
    whole.fit(make_data(16), 2, batch_size=8, progress=False)
    assert resumed.model.head.weight.stride() == (72, 1, 24, 8)
    for parameter, state in resumed.optimizer.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
        assert state["step"].shape == () and float(state["step"]) == 4
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize(("device", "before"), [("cpu", 1), ("cuda", WARM_UP + 1)])
def test_steps_are_timed_once_they_are_graphs(
    monkeypatch: pytest.MonkeyPatch, device: str, before: int
) -> None:
    done = []
    step = (lambda: done.append("step"), 7)
    monkeypatch.setattr(timing, "training_data", lambda recipe, folder: (None, None))
    monkeypatch.setattr(timing, "_stepper", lambda recipe, train, on: step)
    monkeypatch.setattr(timing, "_now", lambda on: 0.0)
    recipe = Recipe(name="any", method="int", dataset="digits", epochs=1)
    (found,) = timing.time_recipes([recipe], device=device, rounds=2, progress=False)
    assert len(done) == before + 2
    assert found == (0.0, 7, 2)


def test_dropout_draws_as_without_buffers(make_tiny, make_data) -> None:
    results = []
    for buffers in (False, True):
        model = make_tiny()
        model.norm = nn.Dropout(0.5)
        trainer = IntTrainer(model, lr=0.01, **INNER)
        if buffers:
            on_buffers(trainer)
        torch.manual_seed(1)
        results.append([trainer.training_step(*make_data(8)).loss for _ in range(5)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
