"""ops.conv_stack against torch's convolutions and what they differentiate to, in float64."""

from __future__ import annotations

import pytest
import torch
from support import assert_as_good_as_torch, threads
from torch import Tensor

from benchmarks.cases import LAYOUTS, lay_out
from fastinterp import build_info
from fastinterp.ops.conv_stack import Convolution, ConvStack, reference, serves

# Channels of the images, their size, and rows (filters, kernel, stride, padding: top, bottom, left,
# right; pool).
CASES = [
    (1, (28, 28), [(16, (4, 4), 2, (1, 1, 1, 1)), (32, (4, 4), 2, (1, 1, 1, 1)),
                   (10, (7, 7), 1, (3, 3, 3, 3))]),
    (3, (13, 9), [(16, (4, 4), 2, (1, 1, 1, 2)), (32, (4, 4), 2, (1, 2, 1, 1)),
                  (100, (7, 7), 1, (3, 3, 3, 3))]),
    (1, (9, 11), [(4, (3, 3), 2, (1, 1, 1, 1))]),
    (3, (12, 17), [(5, (3, 2), 1, (1, 1, 1, 0)), (7, (5, 3), 3, (1, 2, 0, 1)),
                   (3, (2, 2), 1, (0, 1, 1, 0))]),
    (2, (11, 10), [(9, (1, 1), 2, (0, 0, 0, 0)), (33, (3, 3), 2, (1, 1, 1, 1)),
                   (40, (4, 4), 3, (1, 2, 2, 1))]),
    (1, (8, 8), [(17, (3, 3), 1, (1, 1, 1, 1)), (8, (2, 2), 4, (0, 0, 0, 0)),
                 (10, (2, 2), 1, (0, 0, 0, 0))]),  # windows leave gaps; one position
    (2, (6, 7), [(3, (2, 3), 2, (2, 2, 3, 3)), (5, (4, 2), 1, (4, 3, 2, 2))]),  # padding alone
    (3, (21, 20), [(6, (3, 3), 2, (0, 0, 0, 0)), (12, (3, 3), 2, (0, 0, 0, 0))]),  # a rest unseen
    (1, (28, 28), [(32, (5, 5), 1, (2, 2, 2, 2), 2), (64, (5, 5), 1, (2, 2, 2, 2), 2)]),
    (2, (13, 10), [(17, (3, 3), 1, (1, 1, 1, 1), 3), (5, (2, 2), 1, (0, 1, 0, 1), 2),
                   (9, (3, 3), 2, (1, 1, 1, 1))]),  # last windows that are cut off
    (2, (7, 9), [(3, (3, 3), 2, (1, 1, 1, 1)), (20, (3, 3), 1, (1, 1, 1, 1), 4)]),  # one window
]  # fmt: skip
PRECISIONS = [
    False,
    pytest.param(
        True,
        marks=pytest.mark.skipif(
            not serves(torch.ones(1, 1, 1, 1), bf16=True), reason="no units for bfloat16 here"
        ),
    ),
]
needs_kernel = pytest.mark.skipif(
    not serves(torch.ones(1, 1, 1, 1)), reason="no kernel serves here"
)


def tensors(case, images: int = 3) -> tuple[Tensor, list[Convolution]]:
    channels, size, rows = case
    x = torch.rand(images, channels, *size, dtype=torch.float64)
    convolutions: list[Convolution] = []
    for filters, kernel, stride, padding, *pool in rows:
        weight = torch.randn(filters, channels, *kernel, dtype=torch.float64)
        bias = torch.randn(filters, dtype=torch.float64) / 4
        weight /= weight[0].numel() ** 0.5
        convolutions.append(Convolution(weight, bias, stride, padding, *pool))
        channels = filters
    return x, convolutions


def to(dtype: torch.dtype, convolutions: list[Convolution]) -> list[Convolution]:
    return [c._replace(weight=c.weight.to(dtype), bias=c.bias.to(dtype)) for c in convolutions]


def value_and_gradient(run, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = run(x)
    return out.detach(), torch.autograd.grad(out, x, grad)[0]


@needs_kernel
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_is_at_most_twice_that_of_plain_torch(case, layout: str) -> None:
    x, convolutions = tensors(case)
    grad = torch.randn_like(reference(x, convolutions))
    truths = value_and_gradient(lambda x: reference(x, convolutions), x, grad)
    single = to(torch.float32, convolutions)
    theirs = value_and_gradient(lambda x: reference(x, single), x.float(), grad.float())
    stack = ConvStack(single, case[1])
    found = value_and_gradient(stack, lay_out(x.float(), layout), lay_out(grad.float(), layout))
    for ours, plain, truth, what in zip(found, theirs, truths, ("out", "gradient"), strict=True):
        assert ours.shape == truth.shape and ours.dtype == torch.float32
        assert_as_good_as_torch(ours, plain, truth, what)
    with torch.no_grad():
        assert torch.equal(stack(x.float()), found[0])


class _Rounded(torch.autograd.Function):
    """A number rounded to bfloat16, and its gradient too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.bfloat16().to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.bfloat16().to(grad.dtype)


@needs_kernel
@pytest.mark.parametrize("bf16", PRECISIONS[1:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_rounds_what_is_multiplied_and_nothing_else(case, bf16: bool) -> None:
    x, convolutions = tensors(case)
    x, convolutions = x.float(), to(torch.float32, convolutions)
    grad = torch.randn_like(reference(x, convolutions))
    found = value_and_gradient(ConvStack(convolutions, case[1], bf16=bf16), x, grad)

    exact = x.bfloat16().double().requires_grad_()
    out: Tensor = exact
    for index, (weight, bias, stride, (top, bottom, left, right), pool) in enumerate(convolutions):
        out = _Rounded.apply(torch.relu(out)) if index else out
        out = torch.nn.functional.pad(out, (left, right, top, bottom))
        out = torch.nn.functional.conv2d(out, weight.bfloat16().double(), bias.double(), stride)
        if pool > 1:
            out = torch.nn.functional.max_pool2d(out, pool, ceil_mode=True)
    (by_x,) = torch.autograd.grad(_Rounded.apply(out), exact, grad.double())
    # A sum in float32 may round to the bfloat16 beside that of the exact sum: once in 2^16 / 2^8
    # numbers or so, and by 2^-8 of it.
    for ours, truth in ((found[0], out.detach()), (found[1], by_x)):
        error = (ours - truth).norm() / truth.norm()
        assert error < 2**-10, f"{error:.1e}"


@needs_kernel
@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("case", [*CASES[:5], *CASES[-3:]], ids=str)
def test_results_do_not_depend_on_threads_or_on_the_batch(case, bf16: bool) -> None:
    x, convolutions = tensors(case, images=5)
    x, convolutions = x.float(), to(torch.float32, convolutions)
    stack = ConvStack(convolutions, case[1], bf16=bf16)
    grad = torch.randn_like(stack(x))
    whole = value_and_gradient(stack, x, grad)
    for count in (1, 3):
        with threads(count):
            assert all(map(torch.equal, value_and_gradient(stack, x, grad), whole))
    alone = value_and_gradient(stack, x[1:2], grad[1:2])
    assert all(torch.equal(one, all_[1:2]) for one, all_ in zip(alone, whole, strict=True))
    for none, some in zip(value_and_gradient(stack, x[:0], grad[:0]), whole, strict=True):
        assert none.shape == (0, *some.shape[1:])


@needs_kernel
def test_an_expanded_gradient_is_read_as_it_is() -> None:
    x, convolutions = tensors(CASES[0])
    stack = ConvStack(to(torch.float32, convolutions), CASES[0][1])
    grad = torch.randn(3, 10, 1, 1).expand(3, 10, 7, 7)
    found, expected = (
        value_and_gradient(stack, x.float(), g)[1] for g in (grad, grad.contiguous())
    )
    assert torch.equal(found, expected)


@needs_kernel
def test_derivatives_of_the_gradient_are_those_of_torch() -> None:
    x, convolutions = tensors(CASES[0], images=2)
    single = to(torch.float32, convolutions)
    stack = ConvStack(single, CASES[0][1])

    def curvature(run) -> Tensor:
        at = x.float().requires_grad_()
        (grad,) = torch.autograd.grad(run(at).square().sum(), at, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), at)[0]

    torch.testing.assert_close(
        curvature(stack), curvature(lambda at: reference(at, single)), rtol=1e-4, atol=1e-4
    )


@needs_kernel
def test_nan_stays_what_it_is() -> None:
    x, convolutions = tensors(CASES[0])
    stack = ConvStack(to(torch.float32, convolutions), CASES[0][1])
    x[1, 0, 5, 5] = torch.nan
    out, grad = value_and_gradient(stack, x.float(), torch.ones(3, 10, 7, 7))
    assert out[1].isnan().any() and not out[[0, 2]].isnan().any()
    assert not grad[[0, 2]].isnan().any()


def test_it_serves_plain_float32_images_on_a_cpu_alone() -> None:
    image = torch.ones(1, 1, 4, 4)
    wide = build_info()["built"] and build_info()["cpu_vectors"] != "baseline"
    if wide and serves(image):
        assert not serves(image.double())
        assert not serves(image[0])
        assert not serves(image.to("meta"))
        assert not serves(torch.nn.Parameter(image))


WEIGHT, BIAS, NONE = torch.ones(4, 1, 3, 3), torch.ones(4), (0, 0, 0, 0)


@needs_kernel
@pytest.mark.parametrize(
    ("convolutions", "size", "words"),
    [
        ([], (7, 7), "at least one"),
        ([(WEIGHT, BIAS[:3], 1, NONE)], (7, 7), "its bias"),
        ([(WEIGHT, BIAS, 1, NONE), (WEIGHT, BIAS, 1, NONE)], (7, 7), "the convolution before"),
        ([(WEIGHT.double(), BIAS.double(), 1, NONE)], (7, 7), "float32"),
        ([(WEIGHT, BIAS, 0, NONE)], (7, 7), "strides must be positive"),
        ([(WEIGHT, BIAS, 1, (0, -1, 0, 0))], (7, 7), "padding not negative"),
        ([(WEIGHT, BIAS, 1, NONE)], (2, 7), "larger than the padded maps"),
        ([(WEIGHT, BIAS, 1, NONE, 0)], (7, 7), "windows of a pool must be 1 to 16 wide"),
        ([(WEIGHT, BIAS, 1, NONE, 17)], (40, 40), "windows of a pool must be 1 to 16 wide"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_that_do_not_fit_are_refused(convolutions, size, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        ConvStack([Convolution(*c) for c in convolutions], size)


@needs_kernel
@pytest.mark.parametrize("shape", [(2, 1, 7, 8), (2, 3, 7, 7), (1, 7, 7)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    stack = ConvStack([Convolution(WEIGHT, BIAS, 1, NONE)], (7, 7))
    with pytest.raises(RuntimeError, match=r"must be float32 \[N, 1, 7, 7\]"):
        stack(torch.ones(shape))
