"""All methods lower their losses on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastinterp import data
from fastinterp.models import GapClassifier
from fastinterp.training import METHODS, Trainer, method


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


# Those whose losses hold large terms that fall late, or need a smaller weight for so short a run.
EPOCHS = {"mart": 12, "n-fgsm": 12}
GAMMA = {"input-gradient": 0.1}


def losses_fall(name: str, images: data.ImageData) -> None:
    chosen = method(name, GAMMA.get(name))
    trainer = Trainer(Net(), chosen, lr=0.01, eps=0.1, steps=2, step_size=0.06)
    epochs = EPOCHS.get(name, 5)
    history = trainer.fit(images.subset(range(400)), epochs=epochs, batch_size=40, progress=False)
    first, last = history[0], history[-1]
    assert last["loss"] < 0.9 * first["loss"]
    assert last["clean_accuracy"] > first["clean_accuracy"] + 0.25


@pytest.mark.parametrize("name", METHODS)
def test_digits(name: str) -> None:
    losses_fall(name, data.load("digits", split="train", size=8))


@pytest.mark.parametrize("name", METHODS)
def test_mnist(name: str, shared: Path) -> None:
    losses_fall(name, data.load("mnist", root=shared / "data", split="train", size=8))
