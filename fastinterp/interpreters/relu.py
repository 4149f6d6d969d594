"""Another function in place of every ReLU while a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .._utils.errors import InputError

_RELUS = frozenset({torch.relu, torch.relu_, torch.nn.functional.relu, Tensor.relu, Tensor.relu_})
_IN_PLACE = frozenset({torch.relu_, Tensor.relu_})


class ReplaceReLU(TorchFunctionMode):
    """Inside `with ReplaceReLU(function):` every call of a ReLU calls `function` instead.

    This holds for torch.relu, F.relu, nn.ReLU, tensor.relu and the in-place forms. The network
    does not change and gets no hook, so nothing has to be undone.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.replaced = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        self.replaced += 1
        value: Tensor = args[0] if args else kwargs["input"]
        in_place = func in _IN_PLACE or kwargs.get("inplace", False) or args[1:2] == (True,)
        if in_place:  # the graph of `function` may need the value that is overwritten
            return value.copy_(self.function(value.clone()))
        return self.function(value)


def logits_without_relu(
    model: nn.Module, x: Tensor, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Logits [N, C] of images x with `function` in place of each ReLU of the network.

    Raises:
        InputError: the network calls no ReLU.
    """
    with ReplaceReLU(function) as mode:
        logits = model(x)
    if mode.replaced == 0:
        raise InputError(
            "the network calls no ReLU, which this interpreter replaces; "
            "use another interpreter, or IntegratedGradients with softplus=False."
        )
    return logits  # type: ignore[no-any-return]


class _GuidedReLU(torch.autograd.Function):
    """ReLU whose backward pass lets through only positive gradients, to positive inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.relu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return F.relu(grad) * (x > 0)


def guided_relu(x: Tensor) -> Tensor:
    """ReLU with the backward rule of Springenberg et al. (2014)."""
    return _GuidedReLU.apply(x)  # type: ignore[no-any-return]
