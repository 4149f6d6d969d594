"""The error rule of the discrepancy: an error against float64 of at most twice plain torch's.

CPU kernels and the GPU's block programs (run on the CPU) are held to it on the same draws.
FASTINTERP_SEEDS says how many draws each case gets; `make accuracy` takes 50 at every vector width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import DEVICES, DTYPES, assert_as_good_as_torch, block_op, needs_extension
from torch import Tensor

from benchmarks.cases import LAYOUTS, ODD, MapCase
from fastinterp import ops
from fastinterp.ops import reference
from fastinterp.ops.discrepancy import KEEP_GRADIENT

SEEDS = range(int(os.environ.get("FASTINTERP_SEEDS", "2")))
NAMES = ["D", "dD/dA", "dD/dA'", "dD/dW", "dD/db"]
REDUCTIONS = ["weighted", "1-class"]
BIASES = pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])


def value_and_grads(
    function: Callable[..., Tensor], tensors: list[Any], reduction: str, cotangent: Tensor
) -> list[Tensor]:
    """D and its gradients by features, features_adv, weight (and bias, where D depends on it)."""
    labels, bias = tensors[3:]
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_()
              for t in (*tensors[:3], bias) if t is not None]  # fmt: skip
    own_bias = None if bias is None else leaves[3]
    value = function(*leaves[:3], labels, bias=own_bias, reduction=reduction)
    wanted = leaves if reduction == "weighted" else leaves[:3]
    return [value.detach(), *torch.autograd.grad(value, wanted, cotangent.to(value))]


def blocks_value_and_grads(
    how: str, tensors: list[Any], reduction: str, cotangent: Tensor
) -> list[Tensor]:
    """The same from block programs, and dD/dA' once more, as the forward pass leaves it."""
    grad = cotangent.to(tensors[0].dtype)
    value, unit_grad, coefficients = block_op(f"discrepancy{how}")(
        *tensors, reduction == "weighted", KEEP_GRADIENT
    )
    grads = block_op(f"discrepancy_backward{how}")(
        grad, *tensors[:3], coefficients, torch.empty(0), True, True, True
    )
    found = [value, *grads]
    if reduction == "weighted" and tensors[4] is not None:
        r = coefficients.select(1, 1)
        found.append((grad.to(r) @ r).to(grad))
    return found


def draws(case: MapCase, layout: str, reduction: str, with_bias: bool, device: str = "cpu"):
    """dtype, tensors, cotangent, plain torch's results and the truth, for each seed and dtype."""
    for seed in SEEDS:
        for dtype in DTYPES:
            torch.manual_seed(seed)
            tensors = [*case.tensors(dtype, device, layout)]
            if not with_bias:
                tensors[4] = None
            cotangent = (torch.rand(case.images, device=device) + 0.5).to(dtype).double()
            wide = [t.double() if t is not None and t.is_floating_point() else t for t in tensors]
            theirs = value_and_grads(reference.discrepancy, tensors, reduction, cotangent)
            truth = value_and_grads(reference.discrepancy, wide, reduction, cotangent)
            yield f"{dtype}, seed {seed}", tensors, cotangent, theirs, truth


def hold(ours: list[Tensor], theirs: list[Tensor], truth: list[Tensor], what: str) -> None:
    for name, a, b, c in zip(NAMES[: len(truth)], ours, theirs, truth, strict=True):
        assert_as_good_as_torch(a, b, c, f"{name}, {what}")


@needs_extension
@BIASES
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_kernels(device: str, case: MapCase, layout: str, reduction: str, with_bias: bool) -> None:
    for what, tensors, cotangent, theirs, truth in draws(
        case, layout, reduction, with_bias, device
    ):
        ours = value_and_grads(ops.discrepancy, tensors, reduction, cotangent)
        hold(ours, theirs, truth, what)


@needs_extension
@BIASES
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("how", ["", "_in_steps"])
def test_block_programs(
    how: str, case: MapCase, layout: str, reduction: str, with_bias: bool
) -> None:
    for what, tensors, cotangent, theirs, truth in draws(case, layout, reduction, with_bias):
        hold(blocks_value_and_grads(how, tensors, reduction, cotangent), theirs, truth, what)
