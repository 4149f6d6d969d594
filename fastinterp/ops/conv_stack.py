"""A stack of convolutions with ReLUs and max-pooling between them, and its gradient at the images:
what an attack on a plain convolutional network repeats at every step.

A library's convolution reads and writes a whole batch, and takes its time to begin; here each image
goes all the way up and all the way back down in a core's own cache (csrc/cpu/conv_stack.cpp).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import _backend


class Convolution(NamedTuple):
    """A convolution of a stack, and the max-pooling that may follow it.

    Attributes:
        weight: [out, in, k, k'].
        bias: [out].
        stride: of the windows, in rows and columns.
        padding: zeros: top, bottom, left, right.
        pool: what comes out is pooled by windows of so many rows and columns, as far apart, the
            last of which end where the maps end; 1 is none. At most 16.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: tuple[int, int, int, int]
    pool: int = 1


def reference(x: Tensor, convolutions: Sequence[Convolution]) -> Tensor:
    """Plain torch, and differentiable: images x [N, in, H, W] -> [N, out, h, w]."""
    for index, convolution in enumerate(convolutions):
        top, bottom, left, right = convolution.padding
        x = F.pad(F.relu(x) if index else x, (left, right, top, bottom))
        x = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride)
        if convolution.pool > 1:
            x = F.max_pool2d(x, convolution.pool, ceil_mode=True)
    return x


def serves(x: Tensor, *, bf16: bool = False) -> bool:
    """Whether `ConvStack` has a kernel for images like x, and units to multiply bfloat16 with."""
    if type(x) is not Tensor or x.dim() != 4 or x.dtype != torch.float32 or not x.is_cpu:
        return False
    if torch.compiler.is_compiling() or not _backend.is_native(x):
        return False
    native = _backend.extension()
    assert native is not None
    if _backend.build_info()["cpu_vectors"] == "baseline":  # torch's convolutions are faster then
        return False
    return not bf16 or bool(native.has_bf16_pairs())


class ConvStack:
    """Convolutions of images of one size, whose weights are laid out once for many passes.

    Args:
        convolutions: from the images up; constants, whose values at this time are taken.
        size: H, W of the images.
        bf16: multiply in bfloat16 and pass that on between convolutions. Sums, biases, images and
            results stay float32.
    """

    def __init__(
        self, convolutions: Sequence[Convolution], size: tuple[int, int], *, bf16: bool = False
    ) -> None:
        self.convolutions = [
            c._replace(weight=c.weight.detach(), bias=c.bias.detach()) for c in convolutions
        ]
        native: Any = _backend.extension()
        self.native = native.ConvStack(self.convolutions, *size, bf16)

    def __call__(self, x: Tensor) -> Tensor:
        """Images x [N, in, H, W], float32 -> [N, out, h, w], in channels_last."""
        if not (x.requires_grad and torch.is_grad_enabled()):
            out: Tensor = self.native.forward(x)[0]
            return out
        result: Tensor = _Pass.apply(x, self)
        return result


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stack: ConvStack) -> Tensor:
        out: Tensor
        out, between = stack.native.forward(x)
        ctx.save_for_backward(x, between)
        ctx.stack = stack
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, between = ctx.saved_tensors
        if torch.is_grad_enabled():  # derivatives of the gradient are asked for
            out = reference(x, ctx.stack.convolutions)
            (by_x,) = torch.autograd.grad(out, x, grad, create_graph=True)
            return by_x, None
        return ctx.stack.native.backward(grad, between), None
