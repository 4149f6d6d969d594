"""The gradient alone is that of the op with autograd."""

from __future__ import annotations

import pytest
import torch

from fastinterp import ops
from fastinterp.ops import discrepancy_gradient as module
from fastinterp.ops.discrepancy import reference as value_reference


@pytest.mark.parametrize("reduction", ["weighted", "1-class"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_against_the_reference(reduction, layout, bias: bool) -> None:
    features = torch.randn(5, 6, 3, 4, dtype=torch.float64).to(memory_format=layout)
    features_adv = torch.randn_like(features).requires_grad_()
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64) if bias else None
    labels = torch.tensor([0, 3, 1, 1, 2])
    value = value_reference(features, features_adv, weight, labels, b, reduction)
    (expected,) = torch.autograd.grad(value.sum(), features_adv)
    arguments = (features, features_adv, weight, labels, b, reduction)
    for found in (module.discrepancy_gradient(*arguments), module.reference(*arguments)):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert not found.requires_grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_bitwise_the_gradient_of_the_op(layout) -> None:
    features, features_adv = (
        torch.randn(3, 8, 5, 5).to(memory_format=layout).requires_grad_(needs)
        for needs in (False, True)
    )
    weight, labels = torch.randn(10, 8), torch.tensor([0, 3, 9])
    value = ops.discrepancy(features, features_adv, weight, labels)
    (expected,) = torch.autograd.grad(value.sum(), features_adv)
    found = module.discrepancy_gradient(features, features_adv, weight, labels)
    assert torch.equal(found, expected)
    assert found.stride() == features_adv.stride()  # the backward pass goes on in that layout
    found.zero_()
    again = module.discrepancy_gradient(features, features_adv, weight, labels)
    assert torch.equal(again, expected)


def test_no_images() -> None:
    empty = torch.zeros(0, 6, 3, 3)
    weight, labels = torch.randn(4, 6), torch.zeros(0, dtype=torch.int64)
    assert module.discrepancy_gradient(empty, empty, weight, labels).shape == empty.shape
