"""A group: things that do the same work, timed in turn against a baseline and a floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.timing import Thunk, samples, summary

Facts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Skipped:
    """In the place of a thunk that cannot run here."""

    reason: str


class CannotRun(Exception):
    """What a thunk raises at its first run where it turns out that it cannot run here."""


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
        precision: of convolutions and matrix products, by entry; "float32" where none is named.
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
    """A group's times.

    Attributes:
        record: what the results file keeps.
        seconds: every measurement, by entry.
        skipped: reasons, by entry.
        failed: errors, by entry; "results" where these disagree.
    """

    record: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(group: Group, device: str, rounds: int, strict: bool = True) -> Measured:
    """Build the group, run each entry once, check the results, time the entries in turn.

    Args:
        strict: raise what an entry or the check raises. Otherwise that is recorded and costs no
            other entry its times, unless it is the entry that the others are there for.
    """
    built = group.build()
    if set(built) != set(group.entries):
        raise ValueError(f"{group.title}: declared {group.entries}, built {tuple(built)}")
    measured = Measured({})
    runs, results = {}, {}
    for name, run in built.items():
        try:
            if isinstance(run, Skipped):
                raise CannotRun(run.reason)
            results[name], runs[name] = run(), run
        except CannotRun as reason:
            measured.skipped[name] = str(reason)
        except Exception as error:
            if strict or name == group.ours:
                raise
            measured.failed[name] = said(error)
    facts: Facts = {}
    try:
        facts = group.facts(results) if group.facts is not None else {}
    except Exception as error:
        if strict:
            raise
        measured.failed["results"] = said(error)
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
        "entries": _entries(group, measured.seconds, facts),
    }
    if measured.failed:
        measured.record["failed"] = measured.failed
    return measured


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"


def _entries(
    group: Group, seconds: Mapping[str, list[float]], facts: Facts
) -> list[dict[str, Any]]:
    """One row for each entry that ran: microseconds, ratio against the baseline, % of the floor."""
    times = {name: summary(s) for name, s in seconds.items()}
    floor = max((times[name]["median"] for name in group.floor if name in times), default=None)
    rows = []
    for name, time in times.items():
        row: dict[str, Any] = {"name": name, "precision": group.precision.get(name, "float32")}
        row |= {"rounds": len(seconds[name]), "microseconds": time}
        if group.baseline in times:
            row["ratio"] = times[group.baseline]["median"] / time["median"]
        if floor is not None:
            row["percent_of_floor"] = 100 * floor / time["median"]
        rows.append(row | facts.get(name, {}))
    return rows
