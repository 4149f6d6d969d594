"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import Tiny, quadrants
from torch import Tensor

from fastinterp.training import Trainer


@pytest.fixture
def make_tiny() -> Callable[..., Tiny]:
    def make(dtype: torch.dtype = torch.float32, **kwargs: bool) -> Tiny:
        torch.manual_seed(3)
        return Tiny(**kwargs).to(dtype)

    return make


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
