"""The table of cases that tests and benchmarks of the ops share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MapCase:
    """Feature maps [images, channels, height, width] and a classifier of `classes` classes."""

    images: int
    channels: int
    height: int
    width: int
    classes: int

    def __str__(self) -> str:
        shape = f"{self.images}x{self.channels}x{self.height}x{self.width}"
        return f"{shape}-C{self.classes}"

    def tensors(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", layout: str = "contiguous"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """features, features_adv, weight, labels, bias, new random values at each call."""
        shape = (self.images, self.channels, self.height, self.width)
        features = torch.randn(shape, dtype=torch.float64)
        features_adv = features + 0.3 * torch.randn(shape, dtype=torch.float64)
        weight = torch.randn(self.classes, self.channels, dtype=torch.float64)
        bias = torch.randn(self.classes, dtype=torch.float64)
        labels = torch.randint(self.classes, (self.images,))
        floats = [t.to(device, dtype) for t in (features, features_adv, weight, bias)]
        features, features_adv = (lay_out(t, layout) for t in floats[:2])
        return features, features_adv, floats[2], labels.to(device), floats[3]


def lay_out(maps: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == "channels_last":
        return maps.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":  # with gaps between the rows
        wide = torch.zeros(*maps.shape[:3], maps.shape[3] + 2, dtype=maps.dtype, device=maps.device)
        wide[..., 1:-1] = maps
        return wide[..., 1:-1]
    if layout == "transposed":  # width before height in memory
        return maps.mT.contiguous().mT
    return maps.contiguous()


# Small and odd: every edge of every tile, in seconds.
ODD = [
    MapCase(2, 1, 1, 1, 2),
    MapCase(3, 5, 1, 7, 3),
    MapCase(2, 7, 5, 3, 2),
    MapCase(4, 100, 7, 7, 10),
    MapCase(3, 33, 9, 8, 17),
    MapCase(2, 65, 13, 11, 33),
    MapCase(1, 300, 4, 4, 130),
    MapCase(5, 131, 3, 3, 6),
]
# Shapes of the paper's networks and of larger ones.
REAL = [
    MapCase(50, 100, 7, 7, 10),
    MapCase(128, 64, 8, 8, 10),
    MapCase(16, 64, 56, 56, 9),
    MapCase(64, 512, 7, 7, 100),
]
LARGEST = MapCase(2, 2048, 7, 7, 1000)
LAYOUTS = ["contiguous", "channels_last", "sliced", "transposed"]

IMAGE_SHAPES = [(3, 1, 5, 7), (5, 1, 28, 28), (4, 3, 32, 32), (2, 3, 61, 47), (2, 3, 64, 64)]
REAL_IMAGE_SHAPES = [(50, 1, 28, 28), (128, 3, 32, 32), (64, 3, 224, 224)]

KENDALL_SHAPES = [(500, 49), (100, 784), (4, 150528)]  # maps, positions
