"""A group: things that do the same work, timed in turn against a baseline and a floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.timing import Thunk, samples, summary

Facts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Skipped:
    """In the place of a thunk that cannot run here."""

    reason: str


Entries = dict[str, "Thunk | Skipped"]


@dataclass(frozen=True)
class Group:
    """What is timed side by side.

    Attributes:
        section: the heading that the group stands under in the report.
        title: the case, unique among a results file's groups.
        entries: names of what is timed, the baseline and the floor among them.
        build: makes the thunk of each entry, or says why it cannot run.
        ours: the entry that the others are there for.
        baseline: the entry that every ratio is taken against.
        floor: entries that do nothing but what the work cannot do without, one kind of it each; the
            slowest of them is the floor. Empty where there are none.
        facts: results of one run of each entry -> what to record beside its times. It raises
            AssertionError where results that must agree do not.
        axis: for plots of growth, what grows and its value here.
        budget: seconds after which three rounds are enough.
        least: seconds a measurement lasts at least.
    """

    section: str
    title: str
    entries: tuple[str, ...]
    build: Callable[[], Entries]
    ours: str = "fused"
    baseline: str = "reference"
    floor: tuple[str, ...] = ()
    facts: Callable[[dict[str, Any]], Facts] | None = None
    axis: tuple[str, float] | None = None
    budget: float = 20.0
    least: float = 0.008


@dataclass
class Measured:
    """A group's times.

    Attributes:
        record: what the results file keeps.
        seconds: every measurement, by entry.
        skipped: reasons, by entry.
    """

    record: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def measure(group: Group, device: str, rounds: int) -> Measured:
    """Build the group, check its results, time its entries in turn."""
    built = group.build()
    if set(built) != set(group.entries):
        raise ValueError(f"{group.title}: declared {group.entries}, built {tuple(built)}")
    runs = {name: run for name, run in built.items() if not isinstance(run, Skipped)}
    skipped = {name: run.reason for name, run in built.items() if isinstance(run, Skipped)}
    facts: Facts = {}
    if group.facts is not None:
        facts = group.facts({name: run() for name, run in runs.items()})
    seconds = samples(runs, device, rounds, group.least, group.budget)
    record: dict[str, Any] = {
        "section": group.section,
        "title": group.title,
        "ours": group.ours,
        "baseline": group.baseline,
        "floor": ", or ".join(group.floor) or None,
        "axis": group.axis,
        "skipped": skipped,
        "entries": _entries(group, seconds, facts),
    }
    return Measured(record, seconds, skipped)


def _entries(
    group: Group, seconds: Mapping[str, list[float]], facts: Facts
) -> list[dict[str, Any]]:
    """One row for each entry that ran: microseconds, ratio against the baseline, % of the floor."""
    times = {name: summary(s) for name, s in seconds.items()}
    floor = max((times[name]["median"] for name in group.floor if name in times), default=None)
    rows = []
    for name, time in times.items():
        row: dict[str, Any] = {"name": name, "rounds": len(seconds[name]), "microseconds": time}
        if group.baseline in times:
            row["ratio"] = times[group.baseline]["median"] / time["median"]
        if floor is not None:
            row["percent_of_floor"] = 100 * floor / time["median"]
        rows.append(row | facts.get(name, {}))
    return rows
