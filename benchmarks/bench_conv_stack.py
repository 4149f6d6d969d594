"""Convolutions and ReLUs that attacks repeat on a CPU, forward and backward to the images, against
torch's. `make bench` runs this."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.train_peers import Setting
from benchmarks.utils import (
    COMPILED,
    FUSED,
    REFERENCE,
    Entries,
    Group,
    Thunk,
    compiled,
    unavailable,
)
from fastinterp.models.freeze import convolutions as convolutions_of
from fastinterp.models.freeze import fold
from fastinterp.ops import conv_stack
from fastinterp.ops.conv_stack import Convolution, ConvStack, serves

CHANNELS_LAST = "reference, channels_last"
FUSED_BF16 = "fused, bfloat16"
MULTIPLICATIONS = "as many multiplications in one matrix product"
STACKS = {
    "MNIST Small with 10 classes folded in, 50 images": Setting(),
    "MNIST Pool, 50 images": Setting("pool"),
    "CIFAR-10 Small with 10 classes folded in, 128 images": Setting(
        batch=128, channels=3, size=32
    ),
}  # fmt: skip


def groups(device: str) -> list[Group]:
    """None on a GPU, where torch computes the convolutions."""
    if device != "cpu":
        return []
    return [
        Group(
            section="conv_stack, value and gradient for the images",
            title=f"conv_stack {name}",
            entries=(REFERENCE, CHANNELS_LAST, COMPILED, FUSED, FUSED_BF16, MULTIPLICATIONS),
            build=partial(build, setting),
            floor=(MULTIPLICATIONS,),
            precision={FUSED_BF16: "bf16 products, float32 sums"},
            budget=5.0,
        )
        for name, setting in STACKS.items()
    ]


def build(setting: Setting) -> Entries:
    size = (setting.size, setting.size)
    found = convolutions_of(fold(setting.model(), "maps", setting.images()[0]), size)
    assert found is not None
    convolutions = [c._replace(weight=c.weight.detach(), bias=c.bias.detach()) for c in found]
    x = setting.images()[0].requires_grad_()
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    reference = partial(conv_stack.reference, convolutions=convolutions)
    grad = torch.ones_like(reference(x))

    def both(op: Callable[[Tensor], Tensor], images: Tensor = x) -> Thunk:
        return lambda: torch.autograd.grad(op(images), images, grad)

    def fused(bf16: bool) -> Thunk:
        if not serves(x, bf16=bf16):
            return unavailable("no units for it here")
        return both(ConvStack(convolutions, size, bf16=bf16))

    return {
        REFERENCE: both(reference),
        CHANNELS_LAST: both(reference, last),
        COMPILED: compiled(reference, both),
        FUSED: fused(bf16=False),
        FUSED_BF16: fused(bf16=True),
        MULTIPLICATIONS: _matrix_product(2 * multiplications(x, convolutions)),
    }


def multiplications(x: Tensor, convolutions: list[Convolution]) -> int:
    """Of the forward pass, with those of the padding; the backward pass has as many."""
    total = 0
    with torch.no_grad():
        for index, row in enumerate(convolutions):
            out = conv_stack.reference(x, convolutions[: index + 1])
            total += out.numel() * row.pool**2 * row.weight[0].numel()
    return total


def _matrix_product(count: int) -> Thunk:
    """One with `count` multiplications, of a shape that suits torch well."""
    side = 512
    a, b = torch.rand(max(1, count // side**2), side), torch.rand(side, side)
    out = torch.empty(len(a), side)
    return lambda: torch.mm(a, b, out=out)


def bench(timed, group, entry):
    timed(group, entry)
