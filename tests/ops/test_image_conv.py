"""The first convolution's derivatives against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastinterp.ops.image_gradient import image_conv2d

every_channels = pytest.mark.parametrize("channels", [1, 3])
# Kernel, stride, padding.
CASES = [(4, 2, (1, 1)), (5, 1, (2, 2)), (3, 1, (1, 1)), (3, 2, (0, 1)), (7, 3, (0, 0))]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def tensors(kernel: int, channels: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    shapes = [(3, channels, 15, 12), (6, channels, kernel, kernel), (6,)]
    drawn = [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    return [t.to(dtype).requires_grad_() for t in drawn]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@every_channels
@every_case
def test_gradients(case, channels: int, layout: torch.memory_format) -> None:
    x, weight, bias = tensors(case[0], channels)
    laid_out = x.to(memory_format=layout)
    ours = image_conv2d(laid_out, weight, bias, *case[1:])
    theirs = F.conv2d(laid_out, weight, bias, *case[1:])
    assert "ImageConv2d" in type(ours.grad_fn).__name__
    above = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, [x, weight, bias], above)
    expected = torch.autograd.grad(theirs, [x, weight, bias], above)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@every_channels
@every_case
def test_second_derivatives(case, channels: int) -> None:
    x, weight, bias = tensors(case[0], channels)
    inputs = (x[:1], weight, bias)
    assert torch.autograd.gradgradcheck(lambda *ts: image_conv2d(*ts, *case[1:]), inputs)


@every_channels
@every_case
def test_float32_is_as_exact_as_torch(case, channels: int) -> None:
    kernel, *how = case
    errors = []
    above = torch.randn_like(F.conv2d(*tensors(kernel, channels), *how))
    x, *rest = tensors(kernel, channels)
    (truth,) = torch.autograd.grad(F.conv2d(x, *rest, *how), x, above)
    for function in (image_conv2d, F.conv2d):
        x, *rest = tensors(kernel, channels, torch.float32)
        (found,) = torch.autograd.grad(function(x, *rest, *how), x, above.float())
        errors.append(float((found.double() - truth).norm() / truth.norm()))
    assert errors[0] <= max(2 * errors[1], 2**-23)


def test_under_autocast_the_gradient_keeps_the_image_type() -> None:
    x, weight, bias = tensors(4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = image_conv2d(x, weight, bias, 2, (1, 1))
    assert result.dtype == torch.bfloat16
    found = torch.autograd.grad(result.float().square().sum(), [x, weight, bias])
    assert [t.dtype for t in found] == [torch.float32] * 3
    expected = torch.autograd.grad(
        F.conv2d(x, weight, bias, 2, 1).square().sum(), [x, weight, bias]
    )
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 0.02 * b.norm()


def test_other_images_go_through_torch() -> None:
    x, weight, bias = tensors(4, channels=5)
    assert "ImageConv2d" not in type(image_conv2d(x, weight, bias, 2, (1, 1)).grad_fn).__name__
    x, weight, bias = tensors(4)
    detached = image_conv2d(x.detach(), weight, bias, 2, (1, 1))
    assert "ImageConv2d" not in type(detached.grad_fn).__name__


@every_channels
def test_functional_transforms_work(channels: int) -> None:
    x, weight, bias = tensors(4, channels)
    weight, bias = weight.detach(), bias.detach()

    def total(image: Tensor) -> Tensor:
        return image_conv2d(image[None], weight, bias, 2, (1, 1)).square().sum()

    each = torch.func.vmap(torch.func.grad(total))(x.detach())
    (together,) = torch.autograd.grad(F.conv2d(x, weight, bias, 2, 1).square().sum(), x)
    torch.testing.assert_close(each, together)


@every_channels
def test_forward_over_reverse(channels: int) -> None:
    inputs = tuple(
        t.detach()[..., :5, :5] if t.dim() == 4 else t.detach() for t in tensors(4, channels)
    )

    def hessian(convolve) -> tuple:
        def total(*inputs: Tensor) -> Tensor:
            return convolve(*inputs, 2, (1, 1)).pow(3).sum()

        return torch.func.hessian(total, argnums=(0, 1, 2))(*inputs)

    for found, expected in zip(hessian(image_conv2d), hessian(F.conv2d), strict=True):
        torch.testing.assert_close(found, expected)
