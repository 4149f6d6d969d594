"""Random networks, attacked and judged by means over their random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._utils.require import require_count


class MeanOfPasses(nn.Module):
    """A random network, each of whose passes becomes the mean of the logits of several.

    Expectation over transformation (Athalye et al., 2018).

    Attributes:
        model: images -> logits.
        samples: passes in one.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, require_count("samples", samples)
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        passes = [self.model(x) for _ in range(self.samples)]
        return torch.stack(passes).mean(dim=0)
