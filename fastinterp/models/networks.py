"""The paper's three networks, each a table of layers that one class runs.

Pre-activation convention: the first convolution sees x, every later one sees the ReLU of the
output before it, a pool acts on the output before it as it is, and the last output is the feature
map A without a ReLU. All padding is TensorFlow's 'SAME'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .gap import GapClassifier


class Conv(NamedTuple):
    """A convolution; `adds_pooled` > 0 adds the output two layers before it, pooled that much."""

    filters: int
    kernel: int
    stride: int = 1
    adds_pooled: int = 0


class MaxPool(NamedTuple):
    kernel: int
    stride: int


Table = Sequence[Conv | MaxPool]


def _stage(filters: int, stride: int) -> list[Conv]:
    """Five residual blocks of two convolutions; the first block goes down by `stride`."""
    first = [Conv(filters, 3, stride), Conv(filters, 3, adds_pooled=stride)]
    return first + 4 * [Conv(filters, 3), Conv(filters, 3, adds_pooled=1)]


TABLES: dict[str, Table] = {
    "small": [Conv(16, 4, 2), Conv(32, 4, 2), Conv(100, 7)],
    "pool": [Conv(32, 5), MaxPool(2, 2), Conv(64, 5), MaxPool(2, 2)],
    "wresnet": [Conv(16, 3), *_stage(16, 1), *_stage(32, 2), *_stage(64, 2)],
}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow 'SAME': zeros (before, after) that leave ceil(size / stride) positions."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: int, stride: int, value: float) -> tuple[Tensor, tuple[int, int]]:
    """x [N, K, h, w] -> x, padded only where an operator's own padding cannot, and the rest."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


class SameConv2d(nn.Module):
    """Convolution with 'SAME' padding. Its weight [out, in, k, k] and bias [out] start empty."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(filters))

    def forward(self, x: Tensor) -> Tensor:
        x, padding = _pad_same(x, self.weight.shape[2], self.stride, 0.0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding)


class SameMaxPool2d(nn.Module):
    """Max-pooling with 'SAME' padding."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x, padding = _pad_same(x, self.kernel, self.stride, -math.inf)
        return F.max_pool2d(x, self.kernel, self.stride, padding)


def _shortcut(earlier: Tensor, pooled: int, channels: int) -> Tensor:
    """An earlier output, average-pooled and zero-padded on the channel axis, equally each side."""
    if pooled > 1:
        # ceil_mode keeps a last row or column of odd sizes, as the strided convolution does.
        earlier = F.avg_pool2d(earlier, pooled, ceil_mode=True, count_include_pad=False)
    missing = channels - earlier.shape[1]
    if missing:
        earlier = F.pad(earlier, (0, 0, 0, 0, missing // 2, missing - missing // 2))
    return earlier


class LayeredClassifier(GapClassifier):
    """The network that an entry of `TABLES` describes. Its parameters start empty."""

    def __init__(self, name: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = {"name": name, "in_channels": in_channels, "num_classes": num_classes}
        self.table = TABLES[name]
        self.layers = nn.ModuleList()
        channels = in_channels
        for row in self.table:
            if isinstance(row, Conv):
                self.layers.append(SameConv2d(channels, row.filters, row.kernel, row.stride))
                channels = row.filters
            else:
                self.layers.append(SameMaxPool2d(row.kernel, row.stride))
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        self.register_parameter("bias", None)

    @torch.no_grad()
    def initialise(self, seed: int | None = None) -> LayeredClassifier:
        """Normal weights with std 1/sqrt(fan-in), zero biases. Drawn on the CPU, so that a seed
        means the same network on every device; without one, from torch's global generator."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.dim() == 1:
                parameter.zero_()
                continue
            drawn = torch.randn(parameter.shape, generator=generator, device="cpu")
            parameter.copy_(drawn / math.sqrt(parameter[0].numel()))
        return self

    def features(self, x: Tensor) -> Tensor:
        earlier = output = x
        for row, layer in zip(self.table, self.layers, strict=True):
            activated = isinstance(row, Conv) and output is not x
            result = layer(F.relu(output) if activated else output)
            if isinstance(row, Conv) and row.adds_pooled:
                result = result + _shortcut(earlier, row.adds_pooled, row.filters)
            earlier, output = output, result
        return output

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in (self.config or {}).items())


def empty(config: dict[str, Any]) -> LayeredClassifier:
    """The network of a `config`, its parameters not yet set.

    Raises:
        InputError: the config is not {"name", "in_channels", "num_classes"} with usable values.
    """
    if not isinstance(config, dict) or set(config) != {"name", "in_channels", "num_classes"}:
        raise InputError(
            "A model's config must be a dict with exactly the keys name, in_channels and "
            f"num_classes, got {config!r}."
        )
    if config["name"] not in list(TABLES):
        raise InputError(
            f"The model's name must be one of {', '.join(TABLES)}, got {config['name']!r}."
        )
    for key in ("in_channels", "num_classes"):
        value = config[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"A model's {key} must be a whole number from 1 up, got {value!r}.")
    return LayeredClassifier(**config)


def build(config: dict[str, Any], *, seed: int | None = None) -> GapClassifier:
    """The network of a `config` such as {"name": "small", "in_channels": 1, "num_classes": 10}.

    Args:
        config: what `model.config` holds.
        seed: draws the initial weights reproducibly; None takes torch's global generator.

    Raises:
        InputError: unknown name, missing or surplus keys, or counts below 1.
    """
    return empty(config).initialise(seed)


def small(in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None) -> GapClassifier:
    """The paper's Small: three convolutions (16, 32 and 100 filters; strides 2, 2, 1).

    A is [N, 100, ceil(H/4), ceil(W/4)]: 7x7 for 28x28 images. See `build` for the arguments.
    """
    config = {"name": "small", "in_channels": in_channels, "num_classes": num_classes}
    return build(config, seed=seed)


def pool(in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None) -> GapClassifier:
    """The paper's Pool: two convolutions (32 and 64 filters), each followed by max-pooling.

    A is [N, 64, ceil(H/4), ceil(W/4)]: 7x7 for 28x28 images. See `build` for the arguments.
    """
    config = {"name": "pool", "in_channels": in_channels, "num_classes": num_classes}
    return build(config, seed=seed)


def wresnet(
    in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None
) -> GapClassifier:
    """The paper's WResnet: 31 convolutions in residual blocks (16, 32 and 64 filters), no norms.

    A is [N, 64, ceil(H/4), ceil(W/4)]: 8x8 for 32x32 images. See `build` for the arguments.
    """
    config = {"name": "wresnet", "in_channels": in_channels, "num_classes": num_classes}
    return build(config, seed=seed)
