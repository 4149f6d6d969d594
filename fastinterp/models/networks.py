"""The paper's three networks, each a table of layers that one class runs.

Pre-activation convention: the first convolution sees x, every later one sees the ReLU of the
output before it, a pool acts on the output before it as it is, and the last output is the feature
map A without a ReLU. All padding is TensorFlow's 'SAME'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_seed
from ..ops.conv_stack import Convolution
from .folded import FoldedClassifier, fold
from .gap import GapClassifier, Keeps
from .layers import Conv, MaxPool, SameConv2d, SameMaxPool2d, shortcut
from .layers import same_padding as same_padding

Table = Sequence[Conv | MaxPool]
MOST = 2**20  # input channels, or classes


def _stage(filters: int, stride: int) -> list[Conv]:
    """Five residual blocks of two convolutions; the first block goes down by `stride`."""
    first = [Conv(filters, 3, stride), Conv(filters, 3, adds_pooled=stride)]
    return first + 4 * [Conv(filters, 3), Conv(filters, 3, adds_pooled=1)]


TABLES: dict[str, Table] = {
    "small": [Conv(16, 4, 2), Conv(32, 4, 2), Conv(100, 7)],
    "pool": [Conv(32, 5), MaxPool(2, 2), Conv(64, 5), MaxPool(2, 2)],
    "wresnet": [Conv(16, 3), *_stage(16, 1), *_stage(32, 2), *_stage(64, 2)],
}


class LayeredClassifier(GapClassifier):
    """The network that an entry of `TABLES` describes. Its parameters start empty."""

    def __init__(self, name: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = {"name": name, "in_channels": in_channels, "num_classes": num_classes}
        self.in_channels = in_channels
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
        return self._layer(len(self.table) - 1, *self.trunk(x))

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images x -> what the last layer reads: the output two layers before its own, and the one
        before."""
        earlier = output = x
        for index in range(len(self.table) - 1):
            earlier, output = output, self._layer(index, earlier, output)
        return earlier, output

    def _layer(self, index: int, earlier: Tensor, output: Tensor) -> Tensor:
        row, layer = self.table[index], self.layers[index]
        if isinstance(row, MaxPool):
            result: Tensor = layer(output)
            return result
        result = layer(F.relu(output) if index else output)
        if row.adds_pooled:
            result = result + shortcut(earlier, row.adds_pooled, row.filters)
        return result

    def folded(self, keeps: Keeps, image_size: tuple[int, int]) -> GapClassifier:
        top = self.table[-1]
        if keeps == "features" or not isinstance(top, Conv):
            return self
        if self.num_classes >= top.filters:
            if keeps == "maps":
                return self
            keeps = "sums"  # no more of them than logits
        if keeps == "sums" and top.adds_pooled:
            return self  # the last of many layers, in which K sums save too little
        return FoldedClassifier(self, fold(self, keeps, image_size))

    def convolutions(self, image_size: tuple[int, int]) -> list[Convolution] | None:
        plain = not any(isinstance(row, Conv) and row.adds_pooled for row in self.table)
        # Layers that somebody put in are not those of the table.
        own = all(type(layer) in (SameConv2d, SameMaxPool2d) for layer in self.layers)
        if not plain or not own or type(self) is not LayeredClassifier or _is_hooked(self):
            return None
        found: list[Convolution] = []
        height, width = image_size
        for row, layer in zip(self.table, self.layers, strict=True):
            if isinstance(layer, SameConv2d):
                padding = _padding((height, width), layer.weight.shape[2], layer.stride)
                found.append(Convolution(layer.weight, layer.bias, layer.stride, padding))
            elif isinstance(layer, SameMaxPool2d):
                if not found or not _pools(found[-1], layer, (height, width)):
                    return None
                found[-1] = found[-1]._replace(pool=layer.stride)
            height, width = -(-height // row.stride), -(-width // row.stride)
        return found

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in (self.config or {}).items())


def _padding(size: tuple[int, int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Zeros at the top, bottom, left and right."""
    height, width = size
    return (*same_padding(height, kernel, stride), *same_padding(width, kernel, stride))


def _pools(convolution: Convolution, layer: SameMaxPool2d, size: tuple[int, int]) -> bool:
    """Whether a convolution's maps are pooled by windows side by side from their first row on."""
    top, _, left, _ = _padding(size, layer.kernel, layer.stride)
    return convolution.pool == 1 and layer.kernel == layer.stride and top == left == 0


def _is_hooked(model: nn.Module) -> bool:
    """Whether somebody watches, or changes, what passes through its modules."""
    kinds = "forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks"
    return any(getattr(module, f"_{kind}") for module in model.modules() for kind in kinds)


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
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= MOST:
            raise InputError(f"A model's {key} must be a whole number in 1..{MOST}, got {value!r}.")
    return LayeredClassifier(**config)


def build(config: dict[str, Any], *, seed: int | None = None) -> GapClassifier:
    """The network of a `config` such as {"name": "small", "in_channels": 1, "num_classes": 10}.

    Args:
        config: what `model.config` holds.
        seed: draws the initial weights reproducibly; None takes torch's global generator.

    Raises:
        InputError: unknown name, missing or surplus keys, counts below 1, or no whole seed.
    """
    model = empty(config)
    return model.initialise(None if seed is None else require_seed("seed", seed))


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
