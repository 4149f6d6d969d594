"""What gpu_check.py runs commands with and writes: a time limit, the results file, the archive."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_pack, record
from benchmarks.cuda_crash import gpu_answers
from benchmarks.record import ROOT, write_json
from benchmarks.utils import Group, describe, measure

TAIL = 3000  # characters of a log that the results file holds
GRACE = 5.0  # seconds in which a stopped command can save and say where it was

Found = dict[str, Any]  # of a step: passed, seconds, tail


@dataclass(frozen=True)
class Place:
    """Where a command runs.

    Attributes:
        name: of the results file.
        out: its folder.
        pack: the folder that gpu_pack.py made; it need not exist.
        library: digest of the library's code.
        rounds: measurements of each entry.
        load: the machine's, before.
    """

    name: str
    out: Path
    pack: Path
    library: str
    rounds: int
    load: float

    @property
    def results(self) -> Path:
        return self.out / f"{self.name}.json"

    @property
    def logs(self) -> Path:
        return self.out / "logs"

    @property
    def runs(self) -> Path:
        """Networks that this code trained."""
        return ROOT / "runs" / "gpu-check" / self.library[:12]

    def variables(self) -> dict[str, str]:
        """Environment of the steps' processes, which find the contents of the pack in it."""
        found = {"FASTINTERP_BACKEND": "auto", "GIT_PYTHON_REFRESH": "quiet"}  # foolbox's git
        named = {
            record.PACK: self.pack / record.ORIGIN,
            "FASTINTERP_BENCH_NETWORKS": self.pack / gpu_pack.NETWORKS,
            "FASTINTERP_BENCH_DATA_DIR": self.pack / gpu_pack.DATA,
        }
        found |= {name: str(path) for name, path in named.items() if path.exists()}
        if record.PACK in found:
            found[record.PACK] = str(self.pack)
        # ninja may be installed beside this Python, and this Python not be on the path.
        tools = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        peers = [str(self.pack / gpu_pack.PACKAGES), os.environ.get("PYTHONPATH", "")]
        return found | {
            "PATH": os.pathsep.join(filter(None, tools)),
            "PYTHONPATH": os.pathsep.join(filter(None, peers)),
        }


def run(
    command: list[str], seconds: float, log: Path, variables: Mapping[str, str] | None = None
) -> Found:
    """Run a command with its output in `log`; stop it and all that it started when time is up.

    Args:
        variables: of the environment, in addition to those that are set.
    """
    begin = time.perf_counter()
    print(f"$ {' '.join(command)[:200]}", flush=True)
    environment = os.environ | {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    environment |= variables or {}
    with log.open("w", encoding="utf-8") as handle:
        try:
            code, note = _wait(command, seconds, handle, environment)
        except OSError as error:
            code, note = -1, f"it could not be started: {error}"
        if note:
            handle.write(f"\ngpu_check: {note}\n")
    found = {"passed": code == 0, "seconds": time.perf_counter() - begin, "tail": tail(log)}
    print(found["tail"][-800:], flush=True)
    return found


def _hear_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(
    command: list[str], seconds: float, handle: Any, environment: Mapping[str, str]
) -> tuple[int | None, str]:
    """Exit status and a remark; None where the command had to be stopped."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=handle,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_hear_interrupts,
    )  # fmt: skip
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        # SIGINT lets tests sum up and training save; faulthandler shows where a process hangs.
        for number in (signal.SIGINT, signal.SIGABRT):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
                break
        return None, f"stopped after {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    if code < 0:
        return code, f"it was ended by {signal.Signals(-code).name}"
    return code, f"it ended with status {code}" if code else ""


def tail(log: Path) -> str:
    """The end of a log, without progress bars that were overwritten."""
    text = log.read_bytes().decode("utf-8", errors="replace")
    return re.sub(r"[^\n]*\r(?!\n)", "", text)[-TAIL:]


class Results:
    """The results file, written after each step and each group of times."""

    def __init__(self, place: Place) -> None:
        self.path, self.rounds = place.results, place.rounds
        now = {"name": place.name, "library": place.library}
        now |= record.about(place.load, place.rounds) | {"checks": {}, "groups": []}
        before = json.loads(self.path.read_text("utf-8")) if self.path.exists() else None
        self.found = now if before is None or not alike(before, now) else merge(before, now)

    def check(self, step: str, found: Found) -> None:
        self.found["checks"][step] = found
        write_json(self.path, self.found)

    def time(self, step: str, groups: Iterable[Group]) -> Found:
        """Time the groups of a step; the step fails if a group does."""
        begin, wrong = time.perf_counter(), []
        for group in groups:
            try:
                measured = measure(group, "cuda", self.rounds, strict=False)
            except Exception as error:  # try the other groups
                wrong.append(f"{group.title}: {describe(error)}")
                print(wrong[-1], flush=True)
                if gpu_answers():
                    continue
                wrong.append(f"{step}: the GPU failed, so the groups after that were not timed.")
                break
            wrong += [f"{group.title}: {name}: {why}" for name, why in measured.failed.items()]
            self.found = merge(self.found, self.found | {"groups": [measured.record]})
            write_json(self.path, self.found)
            for entry in measured.record["entries"]:
                times = f"{entry['microseconds']['median']:.1f} us, {entry.get('ratio', 0):.2f}x"
                print(f"{group.title}: {entry['name']}: {times}", flush=True)
        seconds = time.perf_counter() - begin
        return {"passed": not wrong, "seconds": seconds, "tail": "\n".join(wrong)}


def alike(one: Found, other: Found) -> bool:
    """Whether both measured the same library with the same torch, driver and model of GPU."""
    return _identity(one) == _identity(other)


def _identity(found: Found) -> tuple[Any, ...]:
    versions = found.get("versions", {})
    return found["name"], found["library"], versions.get("torch"), versions.get("driver")


def merge(before: Found, now: Found) -> Found:
    """The results of two commands on alike machines; of what both measured, the later counts."""
    titles = {group["title"] for group in now["groups"]}
    kept = [group for group in before["groups"] if group["title"] not in titles]
    return now | {
        "modified": before["modified"] or now["modified"],
        "checks": before["checks"] | now["checks"],
        "groups": kept + now["groups"],
    }


def write_archive(archive: Path, results: Path, *folders: Path) -> None:
    """Results and logs in one file, which is written again after each step."""
    temporary = archive.with_name(f".{archive.name}")
    with tarfile.open(temporary, "w:gz") as handle:
        if results.exists():
            handle.add(results, results.name)
        for folder in folders:
            if folder.exists():
                handle.add(folder, folder.name)
    temporary.replace(archive)


def collect(archives: list[Path], out: Path) -> int:
    """Join the results of archives into one file for each GPU; 1 if results do not match."""
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
        write_json(out / f"{name}.json", found)
        failed = [step for step, check in found["checks"].items() if not check["passed"]]
        print(f"wrote {out / name}.json; failed: {', '.join(failed) or 'nothing'}")
    return 0


def _results_in(archive: Path) -> list[Found]:
    with tarfile.open(archive) as handle:
        members = [m for m in handle.getmembers() if m.name.endswith(".json") and "/" not in m.name]
        return [json.loads(handle.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
