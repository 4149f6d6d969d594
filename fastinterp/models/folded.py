"""Networks whose classifier is multiplied into their last convolution.

The paper's feature map A has no ReLU behind it: A is linear in what the last layer reads, the class
maps are linear in A, and the logits are their means. So one convolution with C filters W * kernel
gives the maps of all classes, where the network as written makes K > C feature maps first; and for
the logits, or the sums of A, its positions can be added up beforehand. Only the order of the sums
changes, and attacks and training steps ask for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .gap import GapClassifier, Needs
from .layers import Conv, SameConv2d, same_conv2d, same_padding, shortcut
from .networks import LayeredClassifier


class Head(NamedTuple):
    """The last layer and as much of the classifier as goes into it, M of them being made: C or K.

    Attributes:
        kernel: [M, in, k, k] for the maps; else [M, in, H, W], H and W being the size of what the
            last layer reads.
        bias: [M], of the last layer; that of the classifier stays with the classifier.
        around: [M, K], what goes into the shortcut around the last layer.
        whole: whether the kernel spans the whole input, so that nothing is left to slide over.
        classifier: [C, M], of what is made; None where that is the classes themselves.
    """

    kernel: Tensor
    bias: Tensor
    around: Tensor
    whole: bool
    classifier: Tensor | None


def make_head(model: LayeredClassifier, needs: Needs, image_size: tuple[int, int]) -> Head:
    """The head of a network whose last layer is a convolution, for all needs but "features"."""
    layer, weight = model.layers[-1], model.weight
    assert isinstance(layer, SameConv2d)
    classifier: Tensor | None = None
    # Under autocast the products would be rounded before they are used.
    with torch.autocast(weight.device.type, enabled=False):
        if needs == "maps":
            return Head(_times(weight, layer.weight), weight @ layer.bias, weight, False, None)
        size = _size_below(model, image_size)
        positions = math.prod(-(-side // layer.stride) for side in size)
        weight = weight / positions  # the classifier of sums over the positions
        if needs == "sums":
            classifier = weight
            weight = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        rows, columns = (_reach(layer.weight, side, layer.stride) for side in size)
        kernel = torch.einsum("ia,mkab,jb->mkij", rows, _times(weight, layer.weight), columns)
        return Head(kernel, positions * (weight @ layer.bias), weight, True, classifier)


def folded_features(model: LayeredClassifier, x: Tensor, head: Head) -> Tensor:
    """Images x -> class maps [N, C, h, w]; or [N, M, 1, 1], the sums of A or the logits, these
    without the classifier's bias."""
    top, layer = model.table[-1], model.layers[-1]
    assert isinstance(top, Conv) and isinstance(layer, SameConv2d)
    earlier, output = model.trunk(x)
    activated = F.relu(output) if len(model.table) > 1 else output
    if head.whole:
        result = F.linear(activated.flatten(1), head.kernel.flatten(1), head.bias)
        result = result[:, :, None, None]
    else:
        result = same_conv2d(activated, head.kernel, head.bias, layer.stride)
    if not top.adds_pooled:
        return result
    around = shortcut(earlier, top.adds_pooled, top.filters)
    if head.whole:
        around = around.sum(dim=(2, 3), keepdim=True)
    return result + F.conv2d(around, head.around[:, :, None, None])


Run = Callable[[LayeredClassifier, Tensor, Head], Tensor]


class FoldedClassifier(GapClassifier):
    """A network seen through its folded head: the feature maps are the class maps, or sums.

    Attributes:
        model: the network itself, whose parameters and modes these are.
        head: made of its parameters when this was made.
        run: `folded_features`, or a compiled form of it.
    """

    def __init__(self, model: LayeredClassifier, head: Head, run: Run = folded_features) -> None:
        super().__init__()
        self.model, self.head, self.run = model, head, run
        self.training = model.training
        classes = torch.eye(len(head.bias), dtype=head.bias.dtype, device=head.bias.device)
        self.weight = classes if head.classifier is None else head.classifier

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.model.bias

    def features(self, x: Tensor) -> Tensor:
        return self.run(self.model, x, self.head)

    def logits(self, features: Tensor) -> Tensor:
        if self.head.classifier is not None:
            return super().logits(features)
        logits = features.mean(dim=(2, 3))
        return logits if self.bias is None else logits + self.bias


def _size_below(model: LayeredClassifier, image_size: tuple[int, int]) -> tuple[int, int]:
    """The height and width of what the last layer reads."""
    height, width = image_size
    for row in model.table[:-1]:
        height, width = -(-height // row.stride), -(-width // row.stride)
    return height, width


def _times(weight: Tensor, kernel: Tensor) -> Tensor:
    """[M, K] and [K, in, k, k] -> their product [M, in, k, k]."""
    return (weight @ kernel.flatten(1)).view(-1, *kernel.shape[1:])


def _reach(kernel: Tensor, size: int, stride: int) -> Tensor:
    """[size, k]: how much input i counts through tap a in the sum over the outputs of a row."""
    before, outputs = same_padding(size, kernel.shape[2], stride)[0], -(-size // stride)
    inputs = torch.arange(size, device=kernel.device)[:, None]
    taps = torch.arange(kernel.shape[2], device=kernel.device)[None, :]
    at = inputs + before - taps  # the output where they meet, times the stride
    meet = (at >= 0) & (at % stride == 0) & (at < outputs * stride)
    return meet.to(kernel.dtype)
