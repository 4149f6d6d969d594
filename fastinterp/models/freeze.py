"""Cheaper networks with the same outputs: `fold` for any pass, `freeze` for constant parameters."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.conv_stack import Convolution, ConvStack, serves
from .compiled import CompiledClassifier
from .folded import FoldedClassifier, folded_features, make_head
from .gap import GapClassifier, Needs, OtherFeatures
from .layers import Conv, SameConv2d, SameMaxPool2d, same_padding
from .networks import LayeredClassifier


def fold(model: nn.Module, needs: Needs, x: Tensor) -> nn.Module:
    """The network with its classifier multiplied into its last convolution, where that saves work.

    Without it an Int iteration on MNIST Small takes 3.9 times as long, PGD 7.5 times (one CPU
    thread). Gradients reach the parameters through the folded network, which holds their present
    values: fold again after they changed.

    Args:
        model: any classifier; only the paper's networks that end in a convolution are folded.
        needs: what must be there beside the logits. "maps": the class activation maps, which are
            the feature maps of the folded network, whose classifier is the identity. "sums": each
            feature map's sum over its positions, [N, K, 1, 1], whose gradient is that of A at
            every position. "features": A itself, so nothing can be folded. "logits": nothing.
        x: images of the size that it will see, [N, C_in, H, W].
    """
    if isinstance(model, CompiledClassifier):
        folded = fold(model.model, needs, x)
        if not isinstance(folded, FoldedClassifier):
            return model
        return FoldedClassifier(folded.model, folded.head, model.folded_features)
    if needs == "features" or not isinstance(model, LayeredClassifier) or not _folds(model):
        return model
    top = model.table[-1]
    assert isinstance(top, Conv)
    if model.num_classes >= top.filters:
        if needs == "maps":
            return model
        needs = "sums"  # there are no more of them than logits
    if needs == "sums" and top.adds_pooled:
        return model  # the last of many layers, in which K sums save too little
    return FoldedClassifier(model, make_head(model, needs, (x.shape[2], x.shape[3])))


def freeze(model: nn.Module, x: Tensor, precision: str = "float32") -> nn.Module:
    """The network for passes in which its parameters are constants and only images get a gradient.

    A plain stack of convolutions runs in one kernel (`ops.conv_stack`), where there is one for
    images like x: without it an Int iteration on MNIST Small takes 1.3 times as long, PGD twice.
    Other networks, and those with layers or hooks of their own, are returned as they are.

    Args:
        model: any classifier, folded or not. Its parameters' values are those of this moment.
        x: images of the size and kind that it will see.
        precision: "bf16" multiplies in bfloat16; see `fastinterp.attacks.Outputs`.
    """
    bf16 = precision == "bf16"
    if not isinstance(model, GapClassifier) or not serves(x, bf16=bf16):
        return model
    size = (x.shape[2], x.shape[3])
    layers = convolutions(model, size)
    if layers is None or layers[0].weight.dtype != x.dtype:
        return model
    return FrozenClassifier(model, ConvStack(layers, size, bf16=bf16))


class FrozenClassifier(OtherFeatures):
    """A network whose features are one kernel with its own backward pass, to the images alone."""

    def __init__(self, model: GapClassifier, stack: ConvStack) -> None:
        super().__init__(model)
        self.stack = stack

    def features(self, x: Tensor) -> Tensor:
        return self.stack(x)


def convolutions(model: GapClassifier, size: tuple[int, int]) -> list[Convolution] | None:
    """The layers of a network for images of H, W, if they are convolutions and max-pools alone."""
    if isinstance(model, FoldedClassifier):
        found = convolutions(model.model, size) if model.run is folded_features else None
        if found is None:
            return None
        *below, last = found
        if model.head.whole:
            last = last._replace(stride=1, padding=(0, 0, 0, 0))
        return [*below, last._replace(weight=model.head.kernel, bias=model.head.bias)]
    if not isinstance(model, LayeredClassifier) or not _is_as_written(model):
        return None
    found = []
    height, width = size
    for row, layer in zip(model.table, model.layers, strict=True):
        if isinstance(row, Conv) and row.adds_pooled:
            return None
        if isinstance(layer, SameConv2d):
            padding = _padding((height, width), layer.weight.shape[2], layer.stride)
            found.append(Convolution(layer.weight, layer.bias, layer.stride, padding))
        elif isinstance(layer, SameMaxPool2d):
            if not found or not _pools(found[-1], layer, (height, width)):
                return None
            found[-1] = found[-1]._replace(pool=layer.stride)
        height, width = -(-height // row.stride), -(-width // row.stride)
    return found


def _folds(model: LayeredClassifier) -> bool:
    """Whether its logits are those of the last convolution and the classifier, and nothing else."""
    last = model.layers[-1]
    return type(last) is SameConv2d and _computes_as_written(model) and not _is_hooked(last)


def _is_as_written(model: LayeredClassifier) -> bool:
    """Whether its features are those of its table, without hooks between."""
    own = all(type(layer) in (SameConv2d, SameMaxPool2d) for layer in model.layers)
    return own and _computes_as_written(model) and not any(map(_is_hooked, model.modules()))


def _computes_as_written(model: LayeredClassifier) -> bool:
    methods = ("features", "trunk", "layer", "logits")
    return all(getattr(type(model), m) is getattr(LayeredClassifier, m) for m in methods)


def _is_hooked(module: nn.Module) -> bool:
    kinds = "forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks"
    return any(getattr(module, f"_{kind}") for kind in kinds)


def _padding(size: tuple[int, int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Zeros at the top, bottom, left and right."""
    height, width = size
    return (*same_padding(height, kernel, stride), *same_padding(width, kernel, stride))


def _pools(convolution: Convolution, layer: SameMaxPool2d, size: tuple[int, int]) -> bool:
    """Whether a convolution's maps are pooled by windows side by side from their first row on."""
    top, _, left, _ = _padding(size, layer.kernel, layer.stride)
    return convolution.pool == 1 and layer.kernel == layer.stride and top == left == 0
