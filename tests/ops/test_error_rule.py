"""The error rule of the discrepancy: an error against float64 of at most twice plain torch's.

The CPU kernels and the kernels of the GPU (run on the CPU) must meet it on the same draws: the root
mean square of the errors of all draws against torch's. FASTINTERP_SEEDS says how many draws each
case gets; `make accuracy` takes 50 at every vector width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from support import (
    DEVICES,
    DTYPES,
    FLOORS,
    NAMES,
    Pool,
    block_op,
    needs_extension,
    value_and_grads,
)
from torch import Tensor

from benchmarks.cases import LAYOUTS, ODD, MapCase
from fastinterp import ops
from fastinterp.ops import reference
from fastinterp.ops.discrepancy import SAVE_GRADIENT

LONG = "FASTINTERP_SEEDS" in os.environ
SEEDS = range(int(os.environ.get("FASTINTERP_SEEDS", "6")))
REDUCTIONS = ["weighted", "1-class"]
BIASES = pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])


def blocks_value_and_grads(
    how: str, tensors: list[Any], reduction: str, cotangent: Tensor
) -> list[Tensor]:
    """The same from the kernels of the GPU."""
    grad = cotangent.to(tensors[0].dtype)
    value, _, coefficients = block_op(f"discrepancy{how}")(
        *tensors, reduction == "weighted", SAVE_GRADIENT
    )
    grads = block_op(f"discrepancy_backward{how}")(
        grad, *tensors[:3], coefficients, torch.empty(0), True, True, True
    )
    found = [value, *grads]
    if reduction == "weighted" and tensors[4] is not None:
        r = coefficients.select(1, 1)
        found.append((grad.to(r) @ r).to(grad))
    return found


Run = Callable[[list[Any], str, Tensor], list[Tensor]]


def hold(
    run: Run,
    case: MapCase,
    layout: str,
    reduction: str,
    with_bias: bool,
    device: str = "cpu",
    dtypes: Sequence[torch.dtype] = DTYPES,
) -> None:
    """The rule for a function (tensors, reduction, cotangent) -> D and its gradients."""
    for dtype in dtypes:
        pool = Pool()
        for seed in SEEDS:
            torch.manual_seed(seed)
            tensors = [*case.tensors(dtype, device, layout)]
            if not with_bias:
                tensors[4] = None
            cotangent = (torch.rand(case.images, device=device) + 0.5).to(dtype).double()
            wide = [t.double() if t is not None and t.is_floating_point() else t for t in tensors]
            ours = run(tensors, reduction, cotangent)
            theirs = value_and_grads(reference.discrepancy, tensors, reduction, cotangent)
            truth = value_and_grads(reference.discrepancy, wide, reduction, cotangent)
            for name, a, b, c in zip(NAMES[: len(truth)], ours, theirs, truth, strict=True):
                pool.add(f"{name}, {dtype}", a, b, c)
        pool.check(FLOORS.get(dtype, 0.0))


def fused(tensors: list[Any], reduction: str, cotangent: Tensor) -> list[Tensor]:
    return value_and_grads(ops.discrepancy, tensors, reduction, cotangent)


@needs_extension
@BIASES
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_kernels(device: str, case: MapCase, layout: str, reduction: str, with_bias: bool) -> None:
    hold(fused, case, layout, reduction, with_bias, device)


@needs_extension
@BIASES
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("how", ["", "_in_steps"])
def test_gpu_kernels(how: str, case: MapCase, reduction: str, with_bias: bool) -> None:
    """In one layout: test_emulation.py holds the others to the same results."""
    run = partial(blocks_value_and_grads, how)
    dtypes = DTYPES if LONG else [torch.float32]
    hold(run, case, "contiguous", reduction, with_bias, dtypes=dtypes)
