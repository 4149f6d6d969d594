"""All eight trainers lower their losses on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastinterp import (
    AdvTrainer,
    IGNormSumTrainer,
    IGNormTrainer,
    IntAdvTrainer,
    IntOneClassTrainer,
    IntTrainer,
    NormalTrainer,
    TRADESTrainer,
    data,
)
from fastinterp.models import GapClassifier
from fastinterp.training import Trainer

TRAINERS = [
    NormalTrainer,
    AdvTrainer,
    TRADESTrainer,
    IGNormTrainer,
    IGNormSumTrainer,
    IntTrainer,
    IntOneClassTrainer,
    IntAdvTrainer,
]


class Net(GapClassifier):
    """8x8 images -> 64 maps of 2x2 -> 10 classes: inner loops of seconds, not minutes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 32, 4, stride=2, padding=1)
        self.second = nn.Conv2d(32, 64, 4, stride=2, padding=1)
        self.linear = nn.Linear(64, 10)
        self.weight, self.bias = self.linear.weight, self.linear.bias

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).relu()


@pytest.fixture(scope="module")
def digits() -> data.ImageData:
    return data.load("digits", split="train", size=8).subset(range(400))


@pytest.fixture
def mnist(shared: Path) -> data.ImageData:
    return data.load("mnist", root=shared / "data", split="train", size=8).subset(range(400))


def losses_fall(trainer_class: type[Trainer], images: data.ImageData) -> None:
    inner = {} if trainer_class is NormalTrainer else {"eps": 0.1, "steps": 2, "step_size": 0.06}
    trainer = trainer_class(Net(), lr=0.01, **inner)
    history = trainer.fit(images, epochs=5, batch_size=40, progress=False)
    first, last = history[0], history[-1]
    assert last["loss"] < 0.9 * first["loss"]
    assert last["clean_accuracy"] > first["clean_accuracy"] + 0.25


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_digits(trainer_class: type[Trainer], digits: data.ImageData) -> None:
    losses_fall(trainer_class, digits)


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_mnist(trainer_class: type[Trainer], mnist: data.ImageData) -> None:
    losses_fall(trainer_class, mnist)
