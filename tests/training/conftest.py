"""A network and data small enough to train in a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastinterp.models import GapClassifier
from fastinterp.training import Trainer


class Tiny(GapClassifier):
    """8x8 images of one channel -> 6 maps of 4x4 -> 4 classes, smooth to any order."""

    def __init__(self, bias: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.classifier = nn.Linear(6, 4, bias=bias)
        self.calls = 0

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.classifier.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.classifier.bias

    def features(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(nn.functional.softplus(self.norm(self.conv(x))))


@pytest.fixture
def make_tiny() -> Callable[..., Tiny]:
    def make(dtype: torch.dtype = torch.float32, **kwargs: bool) -> Tiny:
        torch.manual_seed(3)
        return Tiny(**kwargs).to(dtype)

    return make


def quadrants(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 8, 8] with stripes of one of four kinds, under noise; and their kinds."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 4
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    kinds = torch.stack([rows, columns, rows + columns, rows // 2]) % 2  # [4, 8, 8]
    noise = torch.rand((count, 1, 8, 8), generator=generator)
    return (0.7 * kinds[y][:, None] + 0.3 * noise).to(dtype), y


@pytest.fixture
def make_data() -> Callable[..., tuple[Tensor, Tensor]]:
    return quadrants


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def watch_steps(monkeypatch):
    """Call `before(trainer, x)` and `after(trainer, result)` around each training step."""

    def watch(before=None, after=None) -> None:
        original = Trainer.training_step

        def step(self: Trainer, x: Tensor, y: Tensor) -> object:
            if before is not None:
                before(self, x)
            result = original(self, x, y)
            if after is not None:
                after(self, result)
            return result

        monkeypatch.setattr(Trainer, "training_step", step)

    return watch
