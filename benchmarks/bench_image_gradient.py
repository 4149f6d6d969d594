"""The derivative of a first convolution for its images, on a CPU, against torch's. `make bench`
runs this."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.utils import (
    COMPILED,
    COPY,
    FUSED,
    REFERENCE,
    Entries,
    Group,
    compiled,
    copy_entry,
)
from fastinterp.ops import image_gradient

TORCH = "torch's derivative"
# Images [N, in, H, W]; filters, kernel, stride and padding of the convolution.
FIRST = {
    "MNIST Small": ((50, 1, 28, 28), 16, 4, 2, 1),
    "MNIST Pool": ((50, 1, 28, 28), 32, 5, 1, 2),
    "CIFAR-10 WResnet": ((128, 3, 32, 32), 16, 3, 1, 1),
}


def groups(device: str) -> list[Group]:
    """None on a GPU, where torch computes the derivative."""
    if device != "cpu":
        return []
    return [
        Group(
            section="image_gradient",
            title=f"image_gradient {name}",
            entries=(TORCH, REFERENCE, COMPILED, FUSED, COPY),
            build=partial(build, *case),
            baseline=TORCH,
            floor=(COPY,),
            budget=5.0,
        )
        for name, case in FIRST.items()
    ]


def build(
    shape: tuple[int, int, int, int], filters: int, kernel: int, stride: int, padding: int
) -> Entries:
    torch.manual_seed(0)
    x = torch.rand(shape).to(memory_format=torch.channels_last)
    weight = torch.randn(filters, shape[1], kernel, kernel)
    grad = torch.randn_like(F.conv2d(x, weight, None, stride, padding))
    convolution = weight, shape[2:], stride, (padding, padding)

    def by_torch() -> Tensor:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
            [True, False, False],
        )[0]  # fmt: skip

    return {
        TORCH: by_torch,
        REFERENCE: lambda: image_gradient.reference(grad, *convolution),
        COMPILED: compiled(
            image_gradient.reference, lambda op: torch.no_grad()(lambda: op(grad, *convolution))
        ),
        FUSED: torch.no_grad()(lambda: image_gradient.image_gradient(grad, *convolution)),
        COPY: copy_entry(grad.nbytes + x.nbytes, "cpu"),
    }


def bench(timed, group, entry):
    timed(group, entry)
