"""Layers with TensorFlow's 'SAME' padding, and rows of the tables that name them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.image_gradient import image_conv2d


class Conv(NamedTuple):
    """A convolution; `adds_pooled` > 0 adds the output two layers before it, pooled that much."""

    filters: int
    kernel: int
    stride: int = 1
    adds_pooled: int = 0


class MaxPool(NamedTuple):
    kernel: int
    stride: int


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow 'SAME': zeros (before, after) that leave ceil(size / stride) positions."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float) -> tuple[Tensor, tuple[int, int]]:
    """x [N, K, h, w] -> x, padded only where an operator's own padding cannot, and the rest."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def same_conv2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """x [N, in, H, W], weight [out, in, k, k], bias [out] -> [N, out, ceil(H/s), ceil(W/s)]."""
    x, padding = pad_same(x, weight.shape[2], stride, 0.0)
    return image_conv2d(x, weight, bias, stride, padding)


class SameConv2d(nn.Module):
    """Convolution with 'SAME' padding. Its weight [out, in, k, k] and bias [out] start empty."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(filters))

    def forward(self, x: Tensor) -> Tensor:
        return same_conv2d(x, self.weight, self.bias, self.stride)


class SameMaxPool2d(nn.Module):
    """Max-pooling with 'SAME' padding."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x, padding = pad_same(x, self.kernel, self.stride, -math.inf)
        return F.max_pool2d(x, self.kernel, self.stride, padding)


def shortcut(earlier: Tensor, pooled: int, channels: int) -> Tensor:
    """An earlier output, average-pooled and zero-padded on the channel axis, equally each side."""
    if pooled > 1:
        # ceil_mode keeps a last row or column of odd sizes, as the strided convolution does.
        earlier = F.avg_pool2d(earlier, pooled, ceil_mode=True, count_include_pad=False)
    missing = channels - earlier.shape[1]
    if missing:
        earlier = F.pad(earlier, (0, 0, 0, 0, missing // 2, missing - missing // 2))
    return earlier
