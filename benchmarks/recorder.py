"""Measures groups once for all tests that ask, and writes a file of results when all are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.group import Group, Measured, measure
from fastinterp._utils.files import write_json


class ReplayClock:
    """A clock that only moves when told to.

    pytest-benchmark times one entry after another. Ours are timed in turn, so that a drifting
    machine slows all alike; with this clock pytest-benchmark reads those times as if it had
    measured them, and its groups, tables and comparisons work as ever.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = ReplayClock()


@dataclass
class Recorder:
    """What a session has measured.

    Attributes:
        rounds: of each entry.
        plans: file name -> titles of all its groups.
        records: file name -> title -> what was measured.
    """

    rounds: int
    plans: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _last: tuple[str, Measured | Exception] | None = None

    def plan(self, file: str, groups: list[Group]) -> None:
        self.plans[file] = [group.title for group in groups]

    def measure(self, file: str, group: Group, device: str) -> Measured:
        """The group's times, measured at the first call. Only the last group's are kept."""
        if self._last is None or self._last[0] != group.title:
            self._last = (group.title, self._measure(file, group, device))
        if isinstance(self._last[1], Exception):
            raise self._last[1]
        return self._last[1]

    def _measure(self, file: str, group: Group, device: str) -> Measured | Exception:
        try:
            measured = measure(group, device, self.rounds)
        except Exception as error:  # every entry of the group fails with it
            return error
        self.records.setdefault(file, {})[group.title] = measured.record
        return measured

    def write(self, folder: Path, about: dict[str, Any]) -> list[str]:
        """Write the files whose groups were all measured; say what was done with each."""
        said = []
        for file, titles in self.plans.items():
            records = self.records.get(file, {})
            missing = [title for title in titles if title not in records]
            if missing:
                said.append(f"{file}.json not written: {len(missing)} of its groups have no times")
                continue
            groups = [records[title] for title in titles]
            write_json(folder / f"{file}.json", {"name": file, **about, "groups": groups})
            said.append(f"wrote {file}.json")
        return said
