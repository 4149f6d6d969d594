"""The gradient of a convolution at the images that it read: where every attack step ends."""

from __future__ import annotations

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
