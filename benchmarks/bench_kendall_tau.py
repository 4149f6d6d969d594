"""Kendall's tau of rows against a loop over scipy's, equal to 1e-5. `make bench` runs this."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import KENDALL_SHAPES
from benchmarks.utils import (
    COMPILED,
    COPY,
    FUSED,
    REFERENCE,
    Entries,
    Facts,
    Group,
    compiled,
    copy_entry,
)
from fastinterp import ops

SCIPY = "scipy, row by row"


def groups(device: str) -> list[Group]:
    return [
        Group(
            section="kendall_tau",
            title=f"kendall_tau {count}x{length}",
            entries=(SCIPY, REFERENCE, COMPILED, FUSED, COPY),
            build=partial(build, count, length, device),
            baseline=SCIPY,
            floor=(COPY,),
            facts=equal_to_scipy,
            budget=8.0,
        )
        for count, length in KENDALL_SHAPES
    ]


def build(count: int, length: int, device: str) -> Entries:
    torch.manual_seed(0)
    a = torch.randn(count, length, device=device)
    b = a + torch.randn(count, length, device=device)
    rows = a.cpu().numpy(), b.cpu().numpy()
    return {
        SCIPY: lambda: _by_scipy(*rows),
        REFERENCE: lambda: ops.reference.kendall_tau(a, b),
        COMPILED: compiled(ops.reference.kendall_tau, lambda op: lambda: op(a, b)),
        FUSED: lambda: ops.kendall_tau(a, b),
        COPY: copy_entry(2 * a.nbytes, device),  # read a and b
    }


def _by_scipy(a: Any, b: Any) -> Tensor:
    from scipy.stats import kendalltau

    return torch.tensor([kendalltau(*pair).statistic for pair in zip(a, b, strict=True)])


def equal_to_scipy(results: dict[str, Any]) -> Facts:
    """Assert that all agree to 1e-5; record the largest difference."""
    truth = results[SCIPY].double()
    facts: Facts = {}
    for name in (REFERENCE, COMPILED, FUSED):
        if name in results:
            difference = float((results[name].cpu().double() - truth).abs().max())
            assert difference <= 1e-5, f"{name} differs from scipy by {difference}"
            facts[name] = {"difference": difference}
    return facts


def bench(timed, group, entry):
    timed(group, entry)
