"""A network and images that are small enough to attack in a test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastinterp.models import GapClassifier

Problem = tuple[GapClassifier, Tensor, Tensor]


class Tiny(GapClassifier):
    """Two convolutions on small images, three classes."""

    def __init__(self, channels: int = 1, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(8, num_classes)
        self.weight, self.bias = self.linear.weight, self.linear.bias

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(F.relu(self.first(x))))


@pytest.fixture
def make_problem():
    """(n, channels) -> a network, n images 8x8, and classes: its own for nine of ten images."""

    def make(n: int = 37, channels: int = 1) -> Problem:
        model = Tiny(channels).eval()
        x = torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(1))
        x = torch.where(torch.arange(n).view(-1, 1, 1, 1) % 2 == 0, x, x**3)
        with torch.no_grad():
            model.linear.bias -= model(x).mean(dim=0)
            y = model(x).argmax(dim=1)
        y[::10] = (y[::10] + 1) % 3
        return model, x, y

    return make
