"""Timing things side by side: alternating, after warm-up, medians and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Thunk = Callable[[], object]


def measure_once(run: Thunk, device: str, inner: int) -> float:
    """Seconds for one of `inner` runs: device events on a GPU, the wall clock on a CPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(inner):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / inner
    begin = time.perf_counter()
    for _ in range(inner):
        run()
    return (time.perf_counter() - begin) / inner


def side_by_side(
    runs: dict[str, Thunk], device: str = "cpu", rounds: int = 15, least: float = 0.002
) -> dict[str, dict[str, float]]:
    """Time every entry in turn, `rounds` times: {name: {median, lower, upper}} in microseconds.

    Alternating lets a drifting machine slow all entries alike; `least` seconds a measurement keeps
    the clock's grain out.
    """
    inner = {}
    for name, run in runs.items():
        for _ in range(3):
            run()
        inner[name] = max(1, int(least / max(measure_once(run, device, 3), 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(measure_once(run, device, inner[name]))
    return {name: _summary(values) for name, values in seconds.items()}


def _summary(seconds: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return {"median": median * 1e6, "lower": lower * 1e6, "upper": upper * 1e6}
