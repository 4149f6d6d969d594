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
from .._utils.require import require_count, require_one_of, require_seed
from .gap import GapClassifier
from .layers import Conv, MaxPool, SameConv2d, SameMaxPool2d, shortcut

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
    """A network that `TABLES` describes. Its parameters start empty."""

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
        return self.layer(len(self.table) - 1, *self.trunk(x))

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images x -> what the last layer reads: the outputs of the two layers before it."""
        earlier = output = x
        for index in range(len(self.table) - 1):
            earlier, output = output, self.layer(index, earlier, output)
        return earlier, output

    def layer(self, index: int, earlier: Tensor, output: Tensor) -> Tensor:
        """The output of one layer, given the two outputs before it."""
        row, layer = self.table[index], self.layers[index]
        if isinstance(row, MaxPool):
            result: Tensor = layer(output)
            return result
        result = layer(F.relu(output) if index else output)
        if row.adds_pooled:
            result = result + shortcut(earlier, row.adds_pooled, row.filters)
        return result

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
    require_one_of("The model's name", config["name"], TABLES)
    for key in ("in_channels", "num_classes"):
        if require_count(f"The model's {key}", config[key]) > MOST:
            raise InputError(f"The model's {key} must be at most {MOST}, got {config[key]!r}.")
    return LayeredClassifier(**config)


def layered(config: dict[str, Any], seed: int | None = None) -> GapClassifier:
    """One of the paper's networks, with initial weights; see `fastinterp.models.build`."""
    model = empty(config)
    return model.initialise(None if seed is None else require_seed("seed", seed))


def small(in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None) -> GapClassifier:
    """The paper's Small: three convolutions (16, 32 and 100 filters; strides 2, 2, 1).

    A is [N, 100, ceil(H/4), ceil(W/4)]: 7x7 for 28x28 images. See `build` for the arguments.
    """
    config = {"name": "small", "in_channels": in_channels, "num_classes": num_classes}
    return layered(config, seed)


def pool(in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None) -> GapClassifier:
    """The paper's Pool: two convolutions (32 and 64 filters), each followed by max-pooling.

    A is [N, 64, ceil(H/4), ceil(W/4)]: 7x7 for 28x28 images. See `build` for the arguments.
    """
    config = {"name": "pool", "in_channels": in_channels, "num_classes": num_classes}
    return layered(config, seed)


def wresnet(
    in_channels: int = 1, num_classes: int = 10, *, seed: int | None = None
) -> GapClassifier:
    """The paper's WResnet: 31 convolutions in residual blocks (16, 32 and 64 filters), no norms.

    A is [N, 64, ceil(H/4), ceil(W/4)]: 8x8 for 32x32 images. See `build` for the arguments.
    """
    config = {"name": "wresnet", "in_channels": in_channels, "num_classes": num_classes}
    return layered(config, seed)
