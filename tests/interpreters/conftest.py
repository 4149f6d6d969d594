"""Small float64 networks that the interpreters are tried on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fastinterp.models.gap import GapClassifier


class Tiny(GapClassifier):
    """Two convolutions with `activation` between them, in float64 and eval mode."""

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        classes: int = 4,
        channels: int = 5,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, channels, 3, stride=2)
        self.weight = nn.Parameter(torch.randn(classes, channels))
        self.bias = nn.Parameter(torch.randn(classes)) if bias else None
        self.activation = activation
        self.most_images = 0  # in one pass, for the tests of bounded memory
        self.double().eval()

    def features(self, x: Tensor) -> Tensor:
        self.most_images = max(self.most_images, len(x))
        return self.second(self.activation(self.first(x)))


@pytest.fixture
def make_smooth() -> Callable[..., Tiny]:
    """Networks with derivatives of every order, of any number of classes and channels."""
    return partial(Tiny, torch.tanh)


@pytest.fixture
def smooth() -> Tiny:
    """A network with derivatives of every order."""
    return Tiny(torch.tanh)


@pytest.fixture
def relu_net() -> Tiny:
    return Tiny(torch.relu)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, 7, 6, dtype=torch.float64)
