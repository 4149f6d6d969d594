"""How the passes of a climb are made: the same network, at one batch after the other."""

from __future__ import annotations

from torch import Tensor, nn

from ..models.gap import GapClassifier
from ..ops.conv_stack import ConvStack, serves
from .outputs import Outputs, Precision


class Passes:
    """Images x' -> a network's outputs there.

    Its parameters are constants while one climbs, so whatever can be done to them beforehand is
    done here, once.

    Args:
        model: the network.
        x: images of the size and kind that it will see.
        precision: see `Outputs`.
    """

    def __init__(self, model: nn.Module, x: Tensor, precision: Precision = "float32") -> None:
        self.model = _stacked(model, x, precision) or model
        self.precision: Precision = precision

    def __call__(self, x_adv: Tensor) -> Outputs:
        return Outputs(self.model, x_adv, self.precision)


class StackedClassifier(GapClassifier):
    """A network of convolutions and ReLUs alone, in one kernel with its own backward pass.

    Only the images ask for a gradient; it holds the values that parameters had when it was made.
    """

    def __init__(self, model: GapClassifier, stack: ConvStack) -> None:
        super().__init__()
        self.model, self.stack = model, stack
        self.training = model.training

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.model.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.model.bias

    def features(self, x: Tensor) -> Tensor:
        return self.stack(x)

    def logits(self, features: Tensor) -> Tensor:
        return self.model.logits(features)


def _stacked(model: nn.Module, x: Tensor, precision: Precision) -> GapClassifier | None:
    """The network as a stack, where it is one and there is a kernel for it."""
    if not isinstance(model, GapClassifier) or not serves(x, bf16=precision == "bf16"):
        return None
    size = (x.shape[2], x.shape[3])
    convolutions = model.convolutions(size)
    if convolutions is None or convolutions[0][0].dtype != x.dtype:
        return None
    return StackedClassifier(model, ConvStack(convolutions, size, bf16=precision == "bf16"))
