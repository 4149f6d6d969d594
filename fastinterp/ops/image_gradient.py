"""The gradient of a convolution by its images, where the backward pass of every attack step ends.

torch's convolutions on a CPU use vectors along the channels, of which an image has one or three.
The kernel here takes 1/2 to 1/8 of the time of torch's derivative (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from . import _backend
from ._constants import are_weights_constant


# 1. Reference
def reference(
    grad: Tensor, weight: Tensor, size: tuple[int, int], stride: int, padding: tuple[int, int]
) -> Tensor:
    """Plain torch, and differentiable; arguments as in `image_gradient`. Halves sum in float32."""
    exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
    grad, kernel = grad.to(exact), weight.to(exact)
    if weight.shape[1] > 1:
        shape = (len(grad), weight.shape[1], *size)
        images: Tensor = conv2d_input(shape, kernel, grad, stride, padding)  # type: ignore[no-untyped-call]
        return images.to(weight.dtype)
    # Grey images: the taps of every position in one product, which F.fold adds up. In
    # channels_last, positions are rows in memory, and nothing is copied.
    by_position = grad.permute(0, 2, 3, 1).flatten(1, 2)  # [N, h * w, out]
    taps = torch.matmul(kernel.flatten(1).t(), by_position.mT)  # [N, k * k, h * w]
    images = F.fold(taps, size, weight.shape[2:], padding=padding, stride=stride)
    return images.to(weight.dtype)


# 2. Fake
def _fake(
    grad: Tensor, weight: Tensor, height: int, width: int, stride: int, top: int, left: int
) -> Tensor:
    return weight.new_empty(grad.shape[0], weight.shape[1], height, width)


# 3. Autograd: of the convolution whose backward pass uses the op. Second derivatives go through
# plain torch.
class _ImageConv2d(torch.autograd.Function):
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
        ctx.save_for_forward(x, weight)
        ctx.shape = output.shape

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        x_tangent, weight_tangent, bias_tangent = tangents[:3]
        terms = []
        if x_tangent is not None:
            terms.append(F.conv2d(x_tangent, weight, None, ctx.stride, ctx.padding))
        if weight_tangent is not None:
            terms.append(F.conv2d(x, weight_tangent, None, ctx.stride, ctx.padding))
        if bias_tangent is not None:
            terms.append(bias_tangent[:, None, None].expand(ctx.shape))
        return sum(terms[1:], terms[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = image_gradient(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
                grad.to(x.dtype), x, weight, [len(weight)], [ctx.stride] * 2, ctx.padding, [1, 1],
                False, [0, 0], 1, [False, *ctx.needs_input_grad[1:3]],
            )  # fmt: skip
        return grad_x, grad_weight, grad_bias, None, None


# 4. Backend: a kernel in C++; plain torch on a GPU and where it was not built.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::image_gradient", _fake)


# 5. Public within the library
def image_gradient(
    grad: Tensor, weight: Tensor, size: tuple[int, int], stride: int, padding: tuple[int, int]
) -> Tensor:
    """Gradient by x of `F.conv2d(x, weight, None, stride, padding)`.

    Args:
        grad: gradient by the output [N, out, h, w], in any memory layout.
        weight: [out, in, k, k].
        size: H, W of the images.
        stride, padding: of the convolution, padding for rows and columns.

    Returns:
        [N, in, H, W], of the weight's dtype.
    """
    if torch.is_grad_enabled() or not grad.is_cpu or not _backend.is_native(grad):
        return reference(grad, weight, size, stride, padding)
    return torch.ops.fastinterp.image_gradient(grad, weight, *size, stride, *padding)  # type: ignore[no-any-return]


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
) -> Tensor:
    """`F.conv2d` of x [N, in, H, W], with a faster gradient by images of at most 4 channels."""
    if torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding)
    if are_weights_constant():
        weight, bias = weight.detach(), bias.detach()
    few_channels = x.dim() == 4 and x.shape[1] <= 4 and x.device.type == "cpu"
    if not few_channels or not x.requires_grad:
        return F.conv2d(x, weight, bias, stride, padding)
    result: Tensor = _ImageConv2d.apply(x, weight, bias, stride, padding)
    return result
