"""Trainers on a CPU that run as on a GPU: iterations on buffers, with stand-ins for CUDA graphs."""

from __future__ import annotations

from dataclasses import replace

import torch

from fastinterp.training import Trainer
from fastinterp.training.graphs import GraphedIterations

INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


class NoRecorder:
    """Runs the same function on the same buffers each time, as a graph would on a GPU."""

    def warm_up(self, run):
        return run()

    def record(self, run):
        return run


class Counting(NoRecorder):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.warm, self.recorded, self.replayed = 0, 0, 0

    def warm_up(self, run):
        self.warm += 1
        return super().warm_up(run)

    def record(self, run):
        self.recorded += 1

        def replay():
            self.replayed += 1
            return run()

        return replay


class Fixing(Counting):
    """Replays with the settings of the moment of the recording, as a graph does; it reads tensors
    anew, and knows neither their names nor who replaced them."""

    NAMES = ("method", "config", "network", "optimizer")

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer = trainer

    def record(self, run):
        replay, then = super().record(run), self.settings()

        def replay_as_recorded():
            now = self.settings()
            self.put(then)
            try:
                return replay()
            finally:
                self.put(now)

        return replay_as_recorded

    def settings(self):
        groups = self.trainer.optimizer.param_groups
        modules = [(m, m.training, dict(m._modules)) for m in self.trainer.model.modules()]
        ours = {name: getattr(self.trainer, name) for name in self.NAMES}
        return ours, [(group, dict(group)) for group in groups], modules

    def put(self, settings) -> None:
        ours, groups, modules = settings
        for name, value in ours.items():
            setattr(self.trainer, name, value)
        for group, values in groups:
            group.update(values)
        for module, training, parts in modules:
            module.training = training
            module._modules.update(parts)


def on_buffers(
    trainer: Trainer, step_inside: bool = True, recorder: Counting | None = None
) -> Counting:
    """Let a trainer on a CPU run as one on a GPU does."""
    recorder = recorder or Counting()
    trainer._graphs = GraphedIterations(recorder)
    trainer._step_inside = step_inside
    return recorder


def assert_same_weights(a: Trainer, b: Trainer) -> None:
    for first, second in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(first, second)


def change(trainer: Trainer, **settings) -> None:
    trainer.config = replace(trainer.config, **settings)


def take_steps(trainer: Trainer, count: int, make_data) -> None:
    for _ in range(count):
        trainer.training_step(*make_data(8))
