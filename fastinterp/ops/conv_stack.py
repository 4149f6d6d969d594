"""Convolutions with ReLUs and max-pooling between them, and the gradient by their images, on a CPU.

`ConvStack` is an object because it lays out the weights once for the many passes of an attack,
which an op, whose arguments are tensors, would do again in each pass. It is no registered op
because compilers gain nothing from it: its weights are constants, and under torch.compile the
layers themselves run.

A pass takes each image through all layers in a core's own cache (csrc/cpu/conv_stack.cpp): value
and gradient take 38 to 49 % of the time of torch's convolutions, 23 to 29 % in bfloat16
(docs/benchmarks.md).
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
        pool: size and stride of the max-pooling, at most 16; 1 means none. The last window may
            reach past the maps (ceil_mode).
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: tuple[int, int, int, int]
    pool: int = 1


# 1. Reference
def reference(x: Tensor, convolutions: Sequence[Convolution]) -> Tensor:
    """Plain torch, and differentiable: images x [N, in, H, W] -> [N, out, h, w]."""
    for index, convolution in enumerate(convolutions):
        top, bottom, left, right = convolution.padding
        x = F.pad(F.relu(x) if index else x, (left, right, top, bottom))
        x = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride)
        if convolution.pool > 1:
            x = F.max_pool2d(x, convolution.pool, ceil_mode=True)
    return x


# 2. Fake: none, as it is no op.


# 3. Autograd. Second derivatives go through the reference.
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
        if torch.is_grad_enabled():
            out = reference(x, ctx.stack.convolutions)
            return torch.autograd.grad(out, x, grad, create_graph=True)[0], None
        return ctx.stack.native.backward(grad, between), None


# 4. Backend
def serves(x: Tensor, *, bf16: bool = False) -> bool:
    """Whether `ConvStack` has a kernel for images like x; with `bf16`, one that uses bfloat16."""
    if type(x) is not Tensor or x.dim() != 4 or x.dtype != torch.float32 or not x.is_cpu:
        return False
    native = _backend.extension()
    if native is None or torch.compiler.is_compiling() or not _backend.is_native(x):
        return False
    if _backend.build_info()["cpu_vectors"] == "baseline":  # torch's convolutions are faster then
        return False
    return not bf16 or bool(native.has_bf16_pairs())


# 5. Public within the library
class ConvStack:
    """Convolutions of images of one size, whose weights are laid out once for many passes.

    Args:
        convolutions: from the images on; their weights are copied now and stay as they are.
        size: H, W of the images.
        bf16: multiply in bfloat16 and pass that on between convolutions. Sums, biases, images and
            results stay float32.

    Raises:
        RuntimeError: the convolutions do not fit each other or the size; when called, images of
            another size or dtype.
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
