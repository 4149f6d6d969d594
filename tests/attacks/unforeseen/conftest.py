"""A small classifier of images of any size, and ways to take a threat apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    """Smooth, of two layers, for images of `channels` channels -> 4 classes."""

    def make(channels: int = 3, dtype: torch.dtype = torch.float64) -> nn.Module:
        torch.manual_seed(4)
        net = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.Softplus(beta=5),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Softplus(beta=5),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 4),
        )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(3)
        return net.to(dtype)

    return make


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    def make(
        count: int, *shape: int, dtype: torch.dtype = torch.float64, middle: bool = False
    ) -> Tensor:
        generator = torch.Generator().manual_seed(9)
        x = torch.rand((count, *shape), generator=generator, dtype=torch.float64)
        return (0.35 + 0.3 * x if middle else x).to(dtype)

    return make
