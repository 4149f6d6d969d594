"""Groups of programs that do the same work, timed in turn against a baseline and a floor.

Nothing here imports fastinterp, so that a GPU check can start before the kernels are built.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

Thunk = Callable[[], object]
Entries = dict[str, Thunk]
Facts = dict[str, dict[str, Any]]
Op = Callable[..., Tensor]

REFERENCE, COMPILED, FUSED = "reference", "compiled", "fused"
COPY = "copy of as many bytes"
PRODUCTS = "as many matrix products"
PHASES = ("forward", "backward", "both")

FEWEST_ROUNDS = 3
BRIEF = 0.1  # seconds: the caches decide the time of runs as short as this
SLOW = 5.0  # seconds: a first run as long as this is slow for more reasons than imports


class CannotRun(Exception):
    """An entry raises this at its first run if something that it needs is missing here."""


def unavailable(reason: str) -> Thunk:
    """An entry that cannot run."""

    def run() -> None:
        raise CannotRun(reason)

    return run


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"


@dataclass(frozen=True)
class Group:
    """Programs that are timed side by side.

    Attributes:
        section: heading of the group in the report.
        title: of the case, unique in a results file.
        entries: names of what is timed, with the baseline and the floor.
        build: makes the program of each entry.
        ours: name of our entry.
        baseline: name of the entry that ratios are taken against.
        floor: entries that do only the work that cannot be avoided; the slowest is the floor.
        facts: takes the result of one run of each entry, and gives what is recorded beside its
            time. It raises AssertionError if results disagree.
        axis: for plots of growth, what grows and its value.
        precision: of convolutions and matrix products, by entry; float32 if none is named.
        budget: seconds after which three rounds are enough.
        least: seconds that a measurement lasts at least.
    """

    section: str
    title: str
    entries: tuple[str, ...]
    build: Callable[[], Entries]
    ours: str = FUSED
    baseline: str = REFERENCE
    floor: tuple[str, ...] = ()
    facts: Callable[[dict[str, Any]], Facts] | None = None
    axis: tuple[str, float] | None = None
    precision: Mapping[str, str] = field(default_factory=dict)
    budget: float = 20.0
    least: float = 0.008

    def only(self, entries: Sequence[str], **changes: Any) -> Group:
        """The same group with some of its entries."""

        def build() -> Entries:
            built = self.build()
            return {name: built[name] for name in entries}

        floor = tuple(name for name in self.floor if name in entries)
        return replace(self, entries=tuple(entries), build=build, floor=floor, **changes)


@dataclass
class Measured:
    """A group's row for the results file; seconds of each round, and reasons, by entry."""

    record: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(group: Group, device: str, rounds: int, strict: bool = True) -> Measured:
    """Build the group, run each entry once, check the results, time the entries in turn.

    Args:
        strict: raise what an entry or the check of the results raises. Otherwise the error is
            recorded and the other entries are timed, unless it is our entry that fails.
    """
    built = group.build()
    if set(built) != set(group.entries):
        raise ValueError(f"{group.title}: declared {group.entries}, built {tuple(built)}")
    measured = Measured({})
    runs, results = {}, {}
    for name, run in built.items():
        try:
            results[name], runs[name] = run(), run
        except CannotRun as reason:
            measured.skipped[name] = str(reason)
        except Exception as error:
            if strict or name == group.ours:
                raise
            measured.failed[name] = describe(error)
    facts: Facts = {}
    try:
        facts = group.facts(results) if group.facts is not None else {}
    except Exception as error:
        if strict:
            raise
        measured.failed["results"] = describe(error)
    results.clear()
    measured.seconds = samples(runs, device, rounds, group.least, group.budget)
    measured.record = {
        "section": group.section,
        "title": group.title,
        "ours": group.ours,
        "baseline": group.baseline,
        "floor": ", or ".join(group.floor) or None,
        "axis": group.axis,
        "skipped": measured.skipped,
        "entries": _rows(group, measured.seconds, facts),
    }
    if measured.failed:
        measured.record["failed"] = measured.failed
    return measured


def _rows(group: Group, seconds: Mapping[str, list[float]], facts: Facts) -> list[dict[str, Any]]:
    """A row for each entry: microseconds, ratio against the baseline, share of the floor."""
    times = {name: summary(s) for name, s in seconds.items()}
    floor = max((times[name]["median"] for name in group.floor if name in times), default=None)
    rows = []
    for name, found in times.items():
        row: dict[str, Any] = {"name": name, "precision": group.precision.get(name, "float32")}
        row |= {"rounds": len(seconds[name]), "microseconds": found}
        if group.baseline in times:
            row["ratio"] = times[group.baseline]["median"] / found["median"]
        if floor is not None:
            row["percent_of_floor"] = 100 * floor / found["median"]
        rows.append(row | facts.get(name, {}))
    return rows


def samples(
    runs: Mapping[str, Thunk], device: str, rounds: int, least: float, budget: float
) -> dict[str, list[float]]:
    """Time every entry in turn, `rounds` times: {name: seconds of each round}.

    With entries in turn, a machine whose speed drifts slows all of them alike. A brief entry runs
    once unmeasured before each measurement, since the entry before it has changed the caches, and
    then as often as fills `least` seconds, since the clock is coarse.
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
            seconds[name].append(_seconds(run, device, inner[name]))
    return seconds


def _warm_up(run: Thunk, device: str) -> float:
    """Run a few times; the seconds of one run after that."""
    once = _seconds(run, device, 1)
    if BRIEF < once < SLOW:  # the run before may have imported something
        once = _seconds(run, device, 1)
    if once > BRIEF:
        return once
    for _ in range(2):
        run()
    return _seconds(run, device, 3)


def _seconds(run: Thunk, device: str, inner: int) -> float:
    """Of one of `inner` runs: by device events on a GPU, by the wall clock on a CPU."""
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


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, in microseconds."""
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median * 1e6, "lower": lower * 1e6, "upper": upper * 1e6}


# Entries of ops
def op_entries(
    phase: str, fused: Op, reference: Op, inputs: Sequence[Any], wrt: list[int]
) -> Entries:
    """The op in plain torch, compiled and fused: its value, its gradients from a graph that is
    retained, or both.

    Args:
        phase: one of `PHASES`.
        wrt: which of the inputs have gradients.
    """
    for i in wrt:
        inputs[i].requires_grad_()
    by = [inputs[i] for i in wrt]
    ones = torch.ones_like(reference(*inputs))

    def make(op: Op) -> Thunk:
        if phase == "forward":
            return torch.no_grad()(lambda: op(*inputs))
        if phase == "both":
            return lambda: torch.autograd.grad(op(*inputs), by, ones)
        value = op(*inputs)
        return lambda: torch.autograd.grad(value, by, ones, retain_graph=True)

    return {REFERENCE: make(reference), COMPILED: compiled(reference, make), FUSED: make(fused)}


def copy_entry(moved: int, device: str) -> Thunk:
    """A copy that reads and writes `moved` bytes in all."""
    source = torch.ones(max(1, moved // 8), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def products_entry(count: int, features: Tensor, weight: Tensor) -> Thunk:
    """`count` products of the weights [C, K] with the feature maps [N, K, h, w], by torch."""
    weights = weight.detach().expand(len(features), -1, -1)
    panels = features.detach().flatten(2)
    out = torch.bmm(weights, panels)

    def multiply() -> None:
        for _ in range(count):
            torch.bmm(weights, panels, out=out)

    return multiply


def compiled(function: Callable[..., Any], make: Callable[..., Thunk]) -> Thunk:
    """`make(function compiled by torch)`, which is compiled when it first runs.

    Shapes are fixed, which gives the fastest code. The compiler starts afresh, since code for
    other shapes would add a check to each call. Without `donated_buffer=False` a compiled graph
    frees its buffers, and its backward pass can run only once.
    """
    made: list[Thunk] = []

    def run() -> object:
        if not made:
            torch.compiler.reset()
            try:
                with torch._functorch.config.patch(donated_buffer=False):
                    first = make(torch.compile(function, dynamic=False))
                    first()
            except Exception as error:  # of the compiler, or of the C++ compiler behind it
                lines = str(error).strip().splitlines() or [""]
                why = f"torch.compile: {type(error).__name__}: {lines[0][:200]}"
                raise CannotRun(why) from error
            made.append(first)
        return made[0]()

    return run


def use_tf32(on: bool) -> None:
    """For convolutions and matrix products of float32; torch's default is TF32 for the former."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
