"""Convolution of images, whose gradient by the image every attack asks for at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# The gradient at the output [N, out, h, w], the kernel [out, in, k, k], H and W, stride, padding
# -> the gradient at the images [N, in, H, W].
Gradient = Callable[[Tensor, Tensor, tuple[int, int], int, tuple[int, int]], Tensor]


_gradient: Gradient | None = None
_FEW = 4  # channels


def use_image_gradient(gradient: Gradient) -> None:
    """Take `gradient` from now on, in place of torch's own. Networks know no op, so the package
    hands them the one that has a kernel."""
    global _gradient
    _gradient = gradient


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
) -> Tensor:
    """`F.conv2d` of x [N, in, H, W], with a faster derivative by images of few channels on a CPU.

    oneDNN lays vectors along channels, so its backward pass leaves most of each vector empty where
    an image has one or three; see `ops/image_gradient.py`.
    """
    few_on_cpu = x.device.type == "cpu" and x.dim() == 4 and x.shape[1] <= _FEW
    if not few_on_cpu or not x.requires_grad or torch.compiler.is_compiling() or not _gradient:
        return F.conv2d(x, weight, bias, stride, padding)
    result: Tensor = _ImageConv2d.apply(x, weight, bias, stride, padding, _gradient)
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
        gradient: Gradient,
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding, ctx.gradient = inputs
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
            by_x = ctx.gradient(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            _, by_weight, by_bias = torch.ops.aten.convolution_backward(
                grad.to(x.dtype), x, weight, [len(weight)], [ctx.stride] * 2, ctx.padding, [1, 1],
                False, [0, 0], 1, [False, *ctx.needs_input_grad[1:3]],
            )  # fmt: skip
        return by_x, by_weight, by_bias, None, None, None
