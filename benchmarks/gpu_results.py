"""The results file of a GPU, and several of them put together."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cuda_crash import gpu_answers
from benchmarks.gpu_run import Found
from benchmarks.gpu_steps import Place, groups_of


class Results:
    """The results file, written after each thing that was learnt."""

    def __init__(self, place: Place) -> None:
        from benchmarks import machine  # this late: the build may come first

        self.path, self.rounds = place.results, place.rounds
        about = machine.describe(place.load, place.rounds)
        now = {"name": place.name, "library": place.library, **about, "checks": {}, "groups": []}
        before = json.loads(self.path.read_text("utf-8")) if self.path.exists() else None
        self.found = now if before is None or not alike(before, now) else merge(before, now)

    def check(self, step: str, found: Found) -> None:
        self.found["checks"][step] = found
        write(self.path, self.found)

    def time(self, step: str) -> Found:
        """Time the groups of a step; it fails if one of them does."""
        from benchmarks.group import measure, said

        begin, wrong = time.perf_counter(), []
        for group in groups_of(step):
            try:
                measured = measure(group, "cuda", self.rounds, strict=False)
            except Exception as error:  # the other groups may still be timed
                wrong.append(f"{group.title}: {said(error)}")
                print(wrong[-1], flush=True)
                if gpu_answers():
                    continue
                wrong.append(f"{step}: the GPU failed, so the groups after that were not timed.")
                break
            wrong += [f"{group.title}: {name}: {why}" for name, why in measured.failed.items()]
            self.found = merge(self.found, self.found | {"groups": [measured.record]})
            write(self.path, self.found)
            for entry in measured.record["entries"]:
                times = f"{entry['microseconds']['median']:.1f} us, {entry.get('ratio', 0):.2f}x"
                print(f"{group.title}: {entry['name']}: {times}", flush=True)
        seconds = time.perf_counter() - begin
        return {"passed": not wrong, "seconds": seconds, "tail": "\n".join(wrong)}


def alike(one: Found, other: Found) -> bool:
    """Whether the same library was measured with the same torch, driver and kind of GPU."""
    return _identity(one) == _identity(other)


def _identity(found: Found) -> tuple[Any, ...]:
    versions = found.get("versions", {})
    return found["name"], found["library"], versions.get("torch"), versions.get("driver")


def merge(before: Found, now: Found) -> Found:
    """What two commands found that are alike; the later one counts."""
    titles = {group["title"] for group in now["groups"]}
    kept = [group for group in before["groups"] if group["title"] not in titles]
    return now | {
        "modified": before["modified"] or now["modified"],
        "checks": before["checks"] | now["checks"],
        "groups": kept + now["groups"],
    }


def write(path: Path, found: Found) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def collect(archives: list[Path], out: Path) -> int:
    """Join the results in archives into one file a GPU; 1 where some do not belong together."""
    every = [found for archive in archives for found in _results_in(archive)]
    joined: dict[str, Found] = {}
    for found in sorted(every, key=lambda found: str(found["date"])):
        before = joined.get(found["name"])
        if before is not None and not alike(before, found):
            print(f"gpu_check: the archives hold results of {found['name']} from different code, "
                  "torch or driver; collect those that belong together.")  # fmt: skip
            return 1
        joined[found["name"]] = found if before is None else merge(before, found)
    for name, found in joined.items():
        write(out / f"{name}.json", found)
        failed = [step for step, check in found["checks"].items() if not check["passed"]]
        print(f"wrote {out / name}.json; failed: {', '.join(failed) or 'nothing'}")
    return 0


def _results_in(archive: Path) -> list[Found]:
    with tarfile.open(archive) as handle:
        members = [m for m in handle.getmembers() if m.name.endswith(".json") and "/" not in m.name]
        return [json.loads(handle.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
