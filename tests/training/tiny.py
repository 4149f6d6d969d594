"""A network and data small enough to train in a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastinterp.models import GapClassifier


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


def quadrants(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 8, 8] with stripes of one of four kinds, under noise; and their kinds."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 4
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    kinds = torch.stack([rows, columns, rows + columns, rows // 2]) % 2  # [4, 8, 8]
    noise = torch.rand((count, 1, 8, 8), generator=generator)
    return (0.7 * kinds[y][:, None] + 0.3 * noise).to(dtype), y
