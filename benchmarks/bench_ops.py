"""pytest-benchmark: each op, fused and in plain torch. `make bench` runs this on the CPU."""

from __future__ import annotations

import pytest

from benchmarks.op_times import Thunk, all_cases

CASES = [
    pytest.param(title, run, id=f"{title}-{name}")
    for title, thunks, _ in all_cases("cpu")
    for name, run in thunks.items()
]


@pytest.mark.parametrize(("title", "run"), CASES)
def bench(benchmark, title: str, run: Thunk) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = title
    benchmark(run)
