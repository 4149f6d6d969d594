"""The one shape of network that fastinterp explains: features, global average, linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GapClassifier(nn.Module):
    """Images -> feature maps A -> mean over positions -> linear classifier.

    A subclass implements `features`. The class activation map of class c is then exactly
    `weight[c]` applied to A, and its mean is the logit (Zhou et al., 2016; eq. 1 of the paper).

    Attributes:
        weight: [C, K], the linear classifier.
        bias: [C] or None.
        config: how to build this network again, kept in checkpoints; None where unknown.
    """

    weight: Tensor
    bias: Tensor | None
    config: dict[str, Any] | None = None

    def features(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> feature maps A [N, K, h, w]."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Feature maps A [N, K, h, w] -> logits [N, C]."""
        return F.linear(features.mean(dim=(2, 3)), self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> logits [N, C]."""
        return self.logits(self.features(x))

    @property
    def num_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.weight.device
