"""The gradient of a convolution at the images that it read: where every attack step ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from . import _backend


# 1. Reference
def reference(
    grad: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
) -> Tensor:
    """Plain torch, and differentiable. Halves add up in float32.

    For grey images each position's gradients times all taps of the kernel, folded back into an
    image: in channels_last, positions are rows in memory, and nothing is copied.
    """
    exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
    grad, kernel = grad.to(exact), weight.to(exact)
    if weight.shape[1] > 1:
        shape = (len(grad), weight.shape[1], *size)
        images: Tensor = conv2d_input(shape, kernel, grad, stride, padding)  # type: ignore[no-untyped-call]
        return images.to(weight.dtype)
    by_position = grad.permute(0, 2, 3, 1).flatten(1, 2)  # [N, h * w, out]
    taps = kernel.flatten(1).t()  # [k * k, out]
    sent = torch.matmul(taps, by_position.transpose(1, 2))  # [N, k * k, h * w]
    images = F.fold(sent, size, weight.shape[2:], padding=padding, stride=stride)
    return images.to(weight.dtype)


# 2. Fake
def _fake(
    grad: Tensor, weight: Tensor, height: int, width: int, stride: int, top: int, left: int
) -> Tensor:
    return weight.new_empty(grad.shape[0], weight.shape[1], height, width)


# 3. Autograd: the reference, where a derivative is asked for.


# 4. Backends
def register() -> None:
    """Attach the Python half to the compiled op. Called once, when the extension has loaded."""
    torch.library.register_fake("fastinterp::image_gradient", _fake)


# 5. Public, within the library
def image_gradient(
    grad: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
) -> Tensor:
    """Gradient by x of `F.conv2d(x, weight, None, stride, padding)`, on a CPU.

    Args:
        grad: gradient at the output [N, out, h, w], in any memory layout.
        weight: [out, in, k, k].
        size: H, W of the images.
        stride, padding: of the convolution, padding for rows and columns.

    Returns:
        [N, in, H, W], of the weight's dtype.
    """
    if torch.is_grad_enabled() or not grad.is_cpu or not _backend.is_native(grad):
        return reference(grad, weight, size, stride, padding)
    ops = _backend.callable_ops(grad)
    return ops.image_gradient(grad, weight, *size, stride, *padding)  # type: ignore[no-any-return]


_FEW = 4  # channels


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
) -> Tensor:
    """`F.conv2d` of x [N, in, H, W], with a faster derivative by images of few channels on a CPU.

    oneDNN lays vectors along channels, so its backward pass leaves most of each vector empty where
    an image has one or three.
    """
    few_on_cpu = x.device.type == "cpu" and x.dim() == 4 and x.shape[1] <= _FEW
    if not few_on_cpu or not x.requires_grad or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding)
    result: Tensor = _ImageConv2d.apply(x, weight, bias, stride, padding)
    return result


class _ImageConv2d(torch.autograd.Function):
    """Where derivatives of its backward pass are asked for, that is made of torch's operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: int,
        padding: tuple[int, int],
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        ctx.shape = output.shape

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = tangents[:3]
        parts = []
        if by_x is not None:
            parts.append(F.conv2d(by_x, weight, None, ctx.stride, ctx.padding))
        if by_weight is not None:
            parts.append(F.conv2d(x, by_weight, None, ctx.stride, ctx.padding))
        if by_bias is not None:
            parts.append(by_bias[:, None, None].expand(ctx.shape))
        return sum(parts[1:], parts[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = image_gradient(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            _, by_weight, by_bias = torch.ops.aten.convolution_backward(
                grad.to(x.dtype), x, weight, [len(weight)], [ctx.stride] * 2, ctx.padding, [1, 1],
                False, [0, 0], 1, [False, *ctx.needs_input_grad[1:3]],
            )  # fmt: skip
        return by_x, by_weight, by_bias, None, None
