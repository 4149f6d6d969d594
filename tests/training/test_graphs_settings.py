"""Settings that change after a capture, and what a graph leaves of its trainer when it goes."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module

import pytest
import torch
from buffered import (
    INNER,
    Fixing,
    NoRecorder,
    assert_same_weights,
    change,
    on_buffers,
    take_steps,
)
from torch import nn

from fastinterp import IntTrainer
from fastinterp.training import Trainer, method
from fastinterp.training.graphs import WARM_UP, GraphedIterations
from fastinterp.training.optimizer import make_capturable


def change_group(name: str, value: object):
    def apply(trainer: Trainer) -> None:
        trainer.optimizer.param_groups[0][name] = value

    return apply


def setting(**values: object):
    return lambda trainer: change(trainer, **values)


def method_of(name: str, gamma: float | None = None):
    return lambda trainer: setattr(trainer, "method", method(name, gamma))


def another_optimizer(trainer: Trainer) -> None:
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.5)


CHANGES = {
    "lr": change_group("lr", 0.3),
    "weight decay": change_group("weight_decay", 0.5),
    "betas": change_group("betas", [0.5, 0.6]),
    "eps of Adam": change_group("eps", 0.1),
    "maximize": change_group("maximize", True),
    "optimiser": another_optimizer,
    "method": method_of("adv"),
    "gamma": method_of("int", 10.0),
    "precision": setting(precision="bf16"),
    "layout": setting(channels_last=False),
    "steps": setting(steps=1),
    "step size": setting(step_size=0.01),
    "eps": setting(eps=0.05),
    "random start": setting(random_start=False),
    "norm": setting(norm="l2"),
    "mode": lambda trainer: trainer.model.eval(),
    "module": lambda trainer: setattr(trainer.model, "norm", nn.Tanh()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changed_after_a_capture_takes_effect(make_tiny, make_data, name: str) -> None:
    plain, graphed = (IntTrainer(make_tiny(norm=name == "mode"), lr=0.01, **INNER) for _ in "ab")
    recorder = on_buffers(graphed, recorder=Fixing(graphed))
    for trainer in (plain, graphed):
        take_steps(trainer, WARM_UP + 2, make_data)
        CHANGES[name](trainer)
        take_steps(trainer, WARM_UP + 2, make_data)
    assert recorder.replayed >= 2
    assert_same_weights(plain, graphed)


def test_a_learning_rate_set_as_a_number_reaches_the_graph_that_is_there(
    monkeypatch, make_tiny, make_data
) -> None:
    adam = import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda: ["cpu"])
    plain, graphed = (IntTrainer(make_tiny(), lr=0.01, **INNER) for _ in range(2))
    recorder = on_buffers(graphed, recorder=Fixing(graphed))
    graphed._lr_tensors = make_capturable(graphed.optimizer, graphed.device, wanted=True)
    for step in range(12):
        for trainer in (plain, graphed):
            trainer.optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            take_steps(trainer, 1, make_data)
    assert (recorder.recorded, recorder.replayed) == (1, 12 - WARM_UP)
    for first, second in zip(plain.model.parameters(), graphed.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_a_step_outside_the_graph_needs_no_other_one(make_tiny, make_data) -> None:
    def sgd(parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.5)

    plain, graphed = (IntTrainer(make_tiny(), optimizer=sgd, **INNER) for _ in range(2))
    recorder = on_buffers(graphed, step_inside=False, recorder=Fixing(graphed))
    for step in range(8):
        for trainer in (plain, graphed):
            trainer.optimizer.param_groups[0]["lr"] = 0.5 / (1 + step)
            take_steps(trainer, 1, make_data)
    assert recorder.recorded == 1
    assert_same_weights(plain, graphed)


def test_replays_are_counted(make_tiny, make_data) -> None:
    trainer = IntTrainer(make_tiny(), **INNER)
    take_steps(trainer, WARM_UP + 2, make_data)
    assert trainer.graph_replays == 0
    on_buffers(trainer)
    take_steps(trainer, WARM_UP, make_data)
    assert trainer.graph_replays == 0
    take_steps(trainer, 2, make_data)
    change(trainer, steps=1)
    take_steps(trainer, WARM_UP + 1, make_data)
    assert trainer.graph_replays == 3
    with pytest.raises(AttributeError):
        trainer.graph_replays = 0


@pytest.mark.parametrize("graphed", [False, True])
def test_a_trainer_that_nobody_uses_is_gone_at_once(make_tiny, make_data, graphed: bool) -> None:
    """With the memory of its graphs; the garbage collector would come at a time of its own."""

    class Recorder(NoRecorder):
        def record(self, run):  # keeps what a replay writes, and nothing of the trainer
            measured = run()
            return lambda: measured

    trainer = IntTrainer(make_tiny(), **INNER)
    if graphed:
        trainer._graphs = GraphedIterations(Recorder())
    take_steps(trainer, WARM_UP + 2, make_data)
    assert trainer.graph_replays == (2 if graphed else 0)
    there = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert there() is None
    finally:
        gc.enable()
