"""Convolution of images, whose gradient by the image every attack asks for at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
) -> Tensor:
    """`F.conv2d` of x [N, in, H, W], with a faster derivative by grey images on a CPU.

    oneDNN lays vectors along channels. A grey image has one, so its backward pass leaves most of
    each vector empty; a matrix product with all taps side by side, folded back into the image,
    takes a quarter of the time. With three channels the two are about even.
    """
    grey_on_cpu = x.device.type == "cpu" and x.dim() == 4 and x.shape[1] == 1
    if not grey_on_cpu or not x.requires_grad or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding)
    if torch.is_autocast_enabled("cpu"):  # which sees no further than a function of our own
        half = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(half), weight.to(half), bias.to(half)
    result: Tensor = _GreyConv2d.apply(x, weight, bias, stride, padding)
    return result


class _GreyConv2d(torch.autograd.Function):
    """Its backward pass is made of differentiable operations, so second derivatives exist."""

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
            by_x = _by_image(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            _, by_weight, by_bias = torch.ops.aten.convolution_backward(
                grad, x, weight, [len(weight)], [ctx.stride] * 2, ctx.padding, [1, 1],
                False, [0, 0], 1, [False, *ctx.needs_input_grad[1:3]],
            )  # fmt: skip
        return by_x, by_weight, by_bias, None, None


def _by_image(
    grad: Tensor, weight: Tensor, size: torch.Size, stride: int, padding: tuple[int, int]
) -> Tensor:
    """Gradient at the output [N, out, h, w] -> at the image [N, 1, H, W]. Halves add up in float32.

    In channels_last the positions of `grad` are rows in memory, and nothing is copied.
    """
    exact = torch.float64 if grad.dtype == torch.float64 else torch.float32
    by_position = grad.permute(0, 2, 3, 1).flatten(1, 2).to(exact)  # [N, h * w, out]
    taps = weight.flatten(1).t().to(exact)  # [k * k, out]
    sent = torch.matmul(taps, by_position.transpose(1, 2))  # [N, k * k, h * w]
    image = F.fold(sent, size, weight.shape[2:], padding=padding, stride=stride)
    return image.to(grad.dtype)
