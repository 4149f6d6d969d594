"""Helpers for the tests of ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp import build_info

EPS = {
    torch.float64: 2.0**-52,
    torch.float32: 2.0**-23,
    torch.bfloat16: 2.0**-7,
    torch.float16: 2.0**-10,
}


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth||, in float64; NaN never passes a comparison."""
    value, truth = (t.detach().double().cpu() for t in (value, truth))
    difference = (value - truth).norm()
    return float(difference / truth.norm().clamp(min=1e-300))


def assert_as_good_as_torch(ours: Tensor, theirs: Tensor, truth: Tensor, what: str) -> None:
    """The error rule: at most twice the error of plain torch in the same dtype.

    On a handful of numbers plain torch may be nearly exact by luck, so an error of one unit in the
    last place always passes. In float64 the truth is itself plain torch's, and only the rounding
    of another order of summation may lie between the two.
    """
    floor = 1e-12 if ours.dtype == torch.float64 else EPS[ours.dtype]
    error, allowed = relative_error(ours, truth), 2 * relative_error(theirs, truth)
    assert error <= max(allowed, floor), f"{what}: {error:.2e}, plain torch allows {allowed:.2e}"


needs_extension = pytest.mark.skipif(
    not build_info()["built"], reason="the compiled kernels were not built"
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
