"""The moving average of a network's weights (EMA), by torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """The exponential moving average of a network's parameters and running statistics.

    Args:
        model: the network that is trained.
        decay: the weight of the average so far, such as 0.999.

    Attributes:
        averaged: torch's AveragedModel; its `module` is the network with the averages.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)

    def update(self) -> None:
        """Take the weights of the step that was just done into the average."""
        self.averaged.update_parameters(self.model)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the trained network itself have the averages for a while."""
        own, averages = self.model.state_dict(), self.averaged.module.state_dict()
        kept = {name: value.clone() for name, value in own.items()}
        try:
            _copy(own, averages)
            yield
        finally:
            _copy(own, kept)


@torch.no_grad()
def _copy(into: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(values[name])
