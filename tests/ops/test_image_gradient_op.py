"""ops.image_gradient against what torch differentiates, in float64."""

from __future__ import annotations

import pytest
import torch
from support import DTYPES, assert_as_good_as_torch, needs_extension, threads
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases import LAYOUTS, lay_out
from fastinterp.ops.image_gradient import image_gradient, reference

# Channels of the images, their size, filters, kernel, stride, padding.
CASES = [
    (1, (28, 28), 16, (4, 4), 2, (1, 1)),
    (1, (14, 9), 32, (5, 5), 1, (2, 2)),
    (3, (32, 32), 16, (3, 3), 1, (1, 1)),
    (3, (33, 20), 7, (3, 5), 3, (0, 2)),  # windows stop before the last rows and columns
    (2, (8, 11), 3, (2, 2), 4, (0, 0)),  # windows leave gaps
    (1, (7, 7), 100, (7, 7), 1, (3, 3)),
    (1, (3, 4), 2, (3, 4), 1, (0, 0)),  # a single position
    (1, (6, 6), 5, (3, 3), 2, (4, 4)),  # windows that see nothing but padding
    (3, (120, 150), 96, (7, 7), 2, (3, 3)),  # more than is multiplied at a time
]


def tensors(case, images: int = 3) -> tuple[Tensor, Tensor]:
    """The gradient at the output, and the kernel."""
    channels, size, filters, kernel, stride, padding = case
    weight = torch.randn(filters, channels, *kernel, dtype=torch.float64)
    x = torch.zeros(images, channels, *size, dtype=torch.float64)
    return torch.randn_like(F.conv2d(x, weight, None, stride, padding)), weight


def differentiated(case, grad: Tensor, weight: Tensor) -> Tensor:
    """By torch's autograd."""
    channels, size, _, _, stride, padding = case
    x = torch.zeros(len(grad), channels, *size, dtype=grad.dtype, requires_grad=True)
    return torch.autograd.grad(F.conv2d(x, weight, None, stride, padding), x, grad)[0]


@torch.no_grad()
def ours(case, grad: Tensor, weight: Tensor) -> Tensor:
    _, size, _, _, stride, padding = case
    return image_gradient(grad, weight, size, stride, padding)


def kernel(case, grad: Tensor, weight: Tensor) -> Tensor:
    """The compiled op, whatever the tests run with."""
    _, size, _, _, stride, padding = case
    return torch.ops.fastinterp.image_gradient(grad, weight, *size, stride, *padding)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_is_at_most_twice_that_of_plain_torch(case, layout: str) -> None:
    for dtype in DTYPES:
        grad, weight = (t.to(dtype) for t in tensors(case))
        truth = differentiated(case, grad.double(), weight.double())
        found = ours(case, lay_out(grad, layout), weight)
        _, size, _, _, stride, padding = case
        theirs = reference(grad, weight, size, stride, padding)
        assert found.dtype == dtype
        assert_as_good_as_torch(found, theirs, truth, str(dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_half_gradient_meets_a_float32_kernel(case) -> None:
    grad, weight = tensors(case)
    grad, weight = grad.bfloat16(), weight.float()
    found = ours(case, grad, weight)
    truth = differentiated(case, grad.double(), weight.double())
    theirs = differentiated(case, grad.float(), weight)
    assert found.dtype == torch.float32
    assert_as_good_as_torch(found, theirs, truth, "bfloat16 by float32")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_differentiates(case) -> None:
    if case[2] > 20:
        pytest.skip("too many numbers for finite differences")
    grad, weight = (t.requires_grad_() for t in tensors(case, images=1))
    assert torch.autograd.gradcheck(
        lambda *ts: image_gradient(*ts, case[1], *case[4:]), (grad, weight)
    )


@needs_extension
@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_results_do_not_depend_on_threads_or_on_the_batch(case) -> None:
    grad, weight = (t.float() for t in tensors(case, images=5))
    whole = kernel(case, grad, weight)
    for count in (1, 3):
        with threads(count):
            assert torch.equal(kernel(case, grad, weight), whole)
    assert torch.equal(kernel(case, grad[1:2], weight), whole[1:2])
    assert kernel(case, grad[:0], weight).shape == (0, *whole.shape[1:])


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_schema_and_fake_are_true(dtype: torch.dtype) -> None:
    grad, weight = tensors(CASES[0])
    torch.library.opcheck(
        torch.ops.fastinterp.image_gradient.default,
        (grad.bfloat16(), weight.to(dtype), 28, 28, 2, 1, 1),
        test_utils=("test_schema", "test_faketensor"),
    )


@needs_extension
def test_what_does_not_fit_is_refused() -> None:
    op = torch.ops.fastinterp.image_gradient
    grad, weight = torch.ones(2, 4, 5, 5), torch.ones(4, 1, 3, 3)
    for arguments, words in (
        ((grad, torch.ones(3, 1, 3, 3), 7, 7, 1, 0, 0), "share `out`"),
        ((grad.long(), weight, 7, 7, 1, 0, 0), "floating"),
        ((grad[:, :, :0], weight, 7, 7, 1, 0, 0), "only the batch may be empty"),
        ((grad, weight, 6, 7, 1, 0, 0), "inside the padded image"),
        ((grad, weight, 7, 7, 2, 0, 0), "inside the padded image"),
        ((grad, weight, 7, 7, 0, 0, 0), "inside the padded image"),
        ((grad, weight, 7, 7, 1, -1, 0), "inside the padded image"),
    ):
        with pytest.raises(RuntimeError, match=words):
            op(*arguments)
