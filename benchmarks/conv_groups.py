"""Convolutions that attacks repeat, on a CPU: a stack of them up and down, and the way back to the
images alone."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.compiled import COMPILED, compiled_entry
from benchmarks.group import Entries, Group, Skipped
from benchmarks.op_groups import COPY, FUSED, REFERENCE, copy_entry
from benchmarks.timing import Thunk
from benchmarks.train_peers import Setting
from fastinterp.models.freeze import convolutions as convolutions_of
from fastinterp.models.freeze import fold
from fastinterp.ops import conv_stack, image_gradient
from fastinterp.ops.conv_stack import Convolution, ConvStack, serves

CHANNELS_LAST = "reference, channels_last"
FUSED_BF16 = "fused, bfloat16"
MULTIPLICATIONS = "as many multiplications in one matrix product"
TORCH = "torch's derivative"

STACKS = {
    "MNIST Small with 10 classes folded in, 50 images": Setting(),
    "MNIST Pool, 50 images": Setting("pool"),
    "CIFAR-10 Small with 10 classes folded in, 128 images": Setting(
        batch=128, channels=3, size=32
    ),
}  # fmt: skip
# Of the images [N, in, H, W], filters, kernel, stride and padding of the first convolution.
FIRST = {
    "MNIST Small": ((50, 1, 28, 28), 16, 4, 2, 1),
    "MNIST Pool": ((50, 1, 28, 28), 32, 5, 1, 2),
    "CIFAR-10 WResnet": ((128, 3, 32, 32), 16, 3, 1, 1),
}


def all_groups(device: str) -> list[Group]:
    """None on a GPU, where torch's convolutions serve."""
    if device != "cpu":
        return []
    stacks = [
        Group(
            section="conv_stack, value and gradient for the images",
            title=f"conv_stack {name}",
            entries=(REFERENCE, CHANNELS_LAST, COMPILED, FUSED, FUSED_BF16, MULTIPLICATIONS),
            build=partial(_stack, setting),
            floor=(MULTIPLICATIONS,),
            budget=5.0,
        )
        for name, setting in STACKS.items()
    ]
    gradients = [
        Group(
            section="image_gradient",
            title=f"image_gradient {name}",
            entries=(TORCH, REFERENCE, COMPILED, FUSED, COPY),
            build=partial(_gradient, *case),
            baseline=TORCH,
            floor=(COPY,),
            budget=5.0,
        )
        for name, case in FIRST.items()
    ]
    return [*stacks, *gradients]


def _stack(setting: Setting) -> Entries:
    size = (setting.size, setting.size)
    found = convolutions_of(fold(setting.model(), "maps", setting.images()[0]), size)
    assert found is not None
    convolutions = [c._replace(weight=c.weight.detach(), bias=c.bias.detach()) for c in found]
    x = setting.images()[0].requires_grad_()
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    reference = partial(conv_stack.reference, convolutions=convolutions)
    grad = torch.ones_like(reference(x))

    def both(op, images: Tensor = x) -> Thunk:  # type: ignore[no-untyped-def]
        return lambda: torch.autograd.grad(op(images), images, grad)

    def fused(bf16: bool) -> Thunk | Skipped:
        if not serves(x, bf16=bf16):
            return Skipped("no units for it here")
        return both(ConvStack(convolutions, size, bf16=bf16))

    return {
        REFERENCE: both(reference),
        CHANNELS_LAST: both(reference, last),
        COMPILED: compiled_entry(reference, both),
        FUSED: fused(bf16=False),
        FUSED_BF16: fused(bf16=True),
        MULTIPLICATIONS: _multiplications(2 * multiplications(x, convolutions)),
    }


def multiplications(x: Tensor, convolutions: list[Convolution]) -> int:
    """Of the forward pass, those with padding counted; the way back has as many."""
    total = 0
    with torch.no_grad():
        for index in range(len(convolutions)):
            out = conv_stack.reference(x, convolutions[: index + 1])
            row = convolutions[index]
            total += out.numel() * row.pool**2 * row.weight[0].numel()
    return total


def _multiplications(count: int) -> Thunk:
    """A product of a shape that suits torch well."""
    side = 512
    a, b = torch.rand(max(1, count // side**2), side), torch.rand(side, side)
    out = torch.empty(len(a), side)
    return lambda: torch.mm(a, b, out=out)


def _gradient(
    shape: tuple[int, int, int, int], filters: int, kernel: int, stride: int, padding: int
) -> Entries:
    torch.manual_seed(0)
    x = torch.rand(shape).to(memory_format=torch.channels_last)
    weight = torch.randn(filters, shape[1], kernel, kernel)
    grad = torch.randn_like(F.conv2d(x, weight, None, stride, padding))
    places = weight, shape[2:], stride, (padding, padding)

    def by_torch() -> Tensor:
        by_x: Tensor = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
            [True, False, False],
        )[0]  # fmt: skip
        return by_x

    return {
        TORCH: by_torch,
        REFERENCE: lambda: image_gradient.reference(grad, *places),
        COMPILED: compiled_entry(
            image_gradient.reference, lambda op: torch.no_grad()(lambda: op(grad, *places))
        ),
        FUSED: torch.no_grad()(lambda: image_gradient.image_gradient(grad, *places)),
        COPY: copy_entry(grad.nbytes + x.nbytes, "cpu"),
    }
