"""Convolution of images, whose gradient by the image every attack asks for at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.image_gradient import image_gradient


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
) -> Tensor:
    """`F.conv2d` of x [N, in, H, W], with a faster derivative by images of few channels on a CPU.

    oneDNN lays vectors along channels, so its backward pass leaves most of each vector empty where
    an image has one or three; see `ops.image_gradient`.
    """
    few_on_cpu = x.device.type == "cpu" and x.dim() == 4 and x.shape[1] <= _FEW
    if not few_on_cpu or not x.requires_grad or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding)
    result: Tensor = _ImageConv2d.apply(x, weight, bias, stride, padding)
    return result


_FEW = 4


class _ImageConv2d(torch.autograd.Function):
    """Where derivatives of its backward pass are asked for, that is made of torch's operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

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
