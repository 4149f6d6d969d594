"""A network small enough for exact comparisons, and images for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastinterp.models import GapClassifier


class Tiny(GapClassifier):
    """6x6 images of one channel -> 5 maps of 3x3 -> 4 classes. Softplus: smooth to any order."""

    def __init__(self, act: type[nn.Module] = nn.Softplus, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.act = act()
        self.head = nn.Conv2d(8, 5, 3, stride=2, padding=1)
        self.classifier = nn.Linear(5, 4, bias=bias)
        self.calls = 0

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.classifier.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.classifier.bias

    def features(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.act(self.conv(x)))


@pytest.fixture
def make_tiny() -> Callable[..., Tiny]:
    def make(dtype: torch.dtype = torch.float64, **kwargs: object) -> Tiny:
        torch.manual_seed(3)
        return Tiny(**kwargs).to(dtype)

    return make


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Seven images in [0, 1], float64, and labels."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand((7, 1, 6, 6), generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 3, 0, 1, 2])
