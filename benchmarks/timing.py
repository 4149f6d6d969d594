"""Timing things side by side: alternating, after warm-up, medians and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Thunk = Callable[[], object]
FEWEST_ROUNDS = 3


BRIEF = 0.1  # seconds: runs this short depend on what the caches hold
SLOW = 5.0  # seconds: runs this long are so by themselves


def measure_once(run: Thunk, device: str, inner: int) -> float:
    """Seconds for one of `inner` runs: device events on a GPU, the wall clock on a CPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(inner):
            run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / inner
    begin = time.perf_counter()
    for _ in range(inner):
        run()
    return (time.perf_counter() - begin) / inner


def samples(
    runs: Mapping[str, Thunk],
    device: str = "cpu",
    rounds: int = 15,
    least: float = 0.008,
    budget: float = 60.0,
) -> dict[str, list[float]]:
    """Time every entry in turn, `rounds` times: {name: seconds of each round}.

    Alternating lets a drifting machine slow all entries alike; `least` seconds a measurement keeps
    the clock's grain out. A brief entry runs once unmeasured before each measurement, and several
    times in it: what is timed is the run after one of its own, not how the entry before it left the
    caches. Once `budget` seconds are spent, three rounds are enough.
    """
    alone = {name: _warm_up(run, device) for name, run in runs.items()}
    inner = {name: max(1, int(least / max(once, 1e-7))) for name, once in alone.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.perf_counter()
    for done in range(max(rounds, 2)):
        if done >= FEWEST_ROUNDS and time.perf_counter() - begin > budget:
            break
        for name, run in runs.items():
            if alone[name] < BRIEF:
                run()
            seconds[name].append(measure_once(run, device, inner[name]))
    return seconds


def _warm_up(run: Thunk, device: str) -> float:
    """Run a few times; the seconds of one run after that."""
    once = measure_once(run, device, 1)
    if BRIEF < once < SLOW:  # or was something imported, or set up, on the way?
        once = measure_once(run, device, 1)
    if once > BRIEF:  # slow enough for a first run to leave nothing to warm up
        return once
    for _ in range(2):
        run()
    return measure_once(run, device, 3)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, in microseconds."""
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median * 1e6, "lower": lower * 1e6, "upper": upper * 1e6}


def side_by_side(
    runs: Mapping[str, Thunk], device: str = "cpu", rounds: int = 15, least: float = 0.008
) -> dict[str, dict[str, float]]:
    """As `samples`, summed up: {name: {median, lower, upper}} in microseconds."""
    return {name: summary(s) for name, s in samples(runs, device, rounds, least).items()}
