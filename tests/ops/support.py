"""Helpers for the tests of ops."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

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
FLOORS = {torch.float64: 1e-12, torch.float32: 2.0**-24}


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth||, in float64; NaN never passes a comparison."""
    value, truth = (t.detach().double().cpu() for t in (value, truth))
    difference = (value - truth).norm()
    return float(difference / truth.norm().clamp(min=1e-300))


def assert_as_good_as_torch(ours: Tensor, theirs: Tensor, truth: Tensor, what: str) -> None:
    """The error rule: at most twice the error of plain torch in the same dtype.

    On a handful of numbers plain torch may be nearly exact by luck, so in float32 what rounding
    the exact result may cost always passes. In float64 the truth is itself plain torch's, and only
    the rounding of another order of summation may lie between the two.
    """
    floor = FLOORS.get(ours.dtype, 0.0)
    error, allowed = relative_error(ours, truth), 2 * relative_error(theirs, truth)
    assert error <= max(allowed, floor), f"{what}: {error:.2e}, plain torch allows {allowed:.2e}"


class Pool:
    """Errors of all draws together: on a handful of numbers ours or torch's may be nearly exact by
    luck, so one draw says little."""

    def __init__(self) -> None:
        self.squares: dict[str, list[tuple[float, float]]] = {}

    def add(self, what: str, ours: Tensor, theirs: Tensor, truth: Tensor) -> None:
        pair = relative_error(ours, truth) ** 2, relative_error(theirs, truth) ** 2
        self.squares.setdefault(what, []).append(pair)

    def check(self, floor: float) -> None:
        """Root mean squares: ours at most twice torch's (or what rounding the result costs)."""
        for what, pairs in self.squares.items():
            ours, theirs = (math.sqrt(sum(side) / len(pairs)) for side in zip(*pairs, strict=True))
            allowed = max(2 * theirs, floor)
            assert ours <= allowed, f"{what}: {ours:.2e}, plain torch allows {allowed:.2e}"


needs_extension = pytest.mark.skipif(
    not build_info()["built"], reason="the compiled kernels were not built"
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# "races" or "bounds" under `make check-device`, else empty: tests/device_code/build.py.
WATCHING = os.environ.get("FASTINTERP_DEVICE_CODE", "")


@cache
def load_device_code() -> None:
    """Load the GPU's kernels for the CPU; the first test that needs them compiles them."""
    path = Path(__file__).parents[1] / "device_code" / "build.py"
    spec = importlib.util.spec_from_file_location("device_code_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.load(WATCHING or "emulation")


def block_op(name: str) -> Callable[..., Any]:
    """The GPU's kernels for an op, run on the CPU: block after block, or as real device code."""
    load_device_code()
    return getattr(torch.ops.fastinterp, f"{'device' if WATCHING else 'emulated'}_{name}")


NAMES = ["D", "dD/dA", "dD/dA'", "dD/dW", "dD/db"]


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
