"""Small float64 networks that the interpreters are tried on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastinterp.models.gap import GapClassifier

CLASSES = 4


class Tiny(GapClassifier):
    """Two convolutions, `activation` between them and, where asked, after them; a bias too."""

    def __init__(self, activation: Callable[[Tensor], Tensor], last: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        self.weight = nn.Parameter(torch.randn(CLASSES, 5))
        self.bias = nn.Parameter(torch.randn(CLASSES))
        self.activation, self.last = activation, last
        self.most_images = 0  # in one pass, for the tests of bounded memory

    def features(self, x: Tensor) -> Tensor:
        self.most_images = max(self.most_images, len(x))
        a = self.second(self.activation(self.first(x)))
        return self.activation(a) if self.last else a


@pytest.fixture
def smooth() -> Tiny:
    """A network with derivatives of every order."""
    return Tiny(torch.tanh).double().eval()


@pytest.fixture
def relu_net() -> Tiny:
    return Tiny(torch.relu).double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, 7, 6, dtype=torch.float64)
