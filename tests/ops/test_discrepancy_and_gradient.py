"""Value and gradient in one call are those of the op with autograd.

What it refuses is tested with `discrepancy`, whose checks it shares.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.cases import LAYOUTS, ODD, MapCase
from fastinterp import ops

BOTH = {"op": ops.discrepancy_and_gradient, "reference": ops.reference.discrepancy_and_gradient}


@pytest.mark.parametrize("reduction", ["weighted", "1-class"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", BOTH)
def test_against_autograd_in_float64(name: str, reduction, layout: str, with_bias: bool) -> None:
    case = MapCase(5, 6, 3, 4, 4)
    features, features_adv, weight, labels, bias = case.tensors(torch.float64, layout=layout)
    bias = bias if with_bias else None
    features_adv.requires_grad_()
    weight.requires_grad_()
    expected = ops.reference.discrepancy(features, features_adv, weight, labels, bias, reduction)
    (expected_grad,) = torch.autograd.grad(expected.sum(), features_adv)
    value, grad = BOTH[name](features, features_adv, weight, labels, bias=bias, reduction=reduction)
    assert torch.allclose(value, expected, rtol=1e-10, atol=1e-12)
    assert torch.allclose(grad, expected_grad, rtol=1e-10, atol=1e-12)
    assert not value.requires_grad
    assert not grad.requires_grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
def test_it_is_bitwise_the_op_with_autograd(case: MapCase, layout: str) -> None:
    features, features_adv, weight, labels, bias = case.tensors(layout=layout)
    features_adv.requires_grad_()
    expected = ops.discrepancy(features, features_adv, weight, labels, bias=bias)
    (expected_grad,) = torch.autograd.grad(expected.sum(), features_adv)
    value, grad = ops.discrepancy_and_gradient(features, features_adv, weight, labels, bias=bias)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)
    assert grad.stride() == expected_grad.stride()  # the backward pass goes on in that layout
    grad.zero_()
    _, again = ops.discrepancy_and_gradient(features, features_adv, weight, labels, bias=bias)
    assert torch.equal(again, expected_grad)


def test_it_compiles_without_breaks() -> None:
    features, features_adv, weight, labels, _ = MapCase(3, 8, 5, 5, 10).tensors()
    compiled = torch.compile(
        lambda adv: ops.discrepancy_and_gradient(features, adv, weight, labels),
        fullgraph=True,
        backend="aot_eager",
    )
    expected = ops.discrepancy_and_gradient(features, features_adv, weight, labels)
    for found, wanted in zip(compiled(features_adv), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_no_images() -> None:
    empty = torch.zeros(0, 6, 3, 3)
    weight, labels = torch.randn(4, 6), torch.zeros(0, dtype=torch.int64)
    value, grad = ops.discrepancy_and_gradient(empty, empty, weight, labels)
    assert value.shape == (0,)
    assert grad.shape == empty.shape
