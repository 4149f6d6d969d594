"""Results files: the machine, the versions and the commit, and the groups that were measured.

They hold no name and no path of the machine.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.utils import Group, Measured, measure

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("numpy", "scipy", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "captum")
PACK = "FASTINTERP_BENCH_PACK"  # names the folder that benchmarks/gpu_pack.py wrote
ORIGIN = "origin.json"
SUFFIXES = ("h", "cuh", "inc", "cpp", "cu")
KERNELS = (*(f"csrc/**/*.{suffix}" for suffix in SUFFIXES), "setup.py")
LIBRARY = (*KERNELS, "fastinterp/**/*.py", "fastinterp/**/*.toml")
CODE = (*LIBRARY, "benchmarks/*.py", "tests/**/*.py", "pyproject.toml")


@dataclass
class Recorder:
    """Measures groups, and writes a results file once all of its groups are measured.

    Attributes:
        rounds: measurements of each entry.
        plans: file name -> titles of all its groups.
        records: file name -> title -> the group's record.
    """

    rounds: int
    plans: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _last: tuple[str, Measured | Exception] | None = None

    def measure(self, file: str, group: Group) -> Measured:
        """The group's times, measured at the first call; an error is raised at every call."""
        if self._last is None or self._last[0] != group.title:
            try:
                measured: Measured | Exception = measure(group, "cpu", self.rounds)
                self.records.setdefault(file, {})[group.title] = measured.record
            except Exception as error:
                measured = error
            self._last = group.title, measured
        if isinstance(self._last[1], Exception):
            raise self._last[1]
        return self._last[1]

    def write(self, folder: Path, about: dict[str, Any]) -> list[str]:
        """Write the files whose groups are all measured; a line for each file."""
        lines = []
        for file, titles in self.plans.items():
            records = self.records.get(file, {})
            missing = sum(title not in records for title in titles)
            if missing:
                lines.append(f"{file}.json was not written: {missing} of its groups have no times")
                continue
            groups = [records[title] for title in titles]
            write_json(folder / f"{file}.json", {"name": file, **about, "groups": groups})
            lines.append(f"wrote {file}.json")
        return lines


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def about(load_before: float, rounds: int) -> dict[str, Any]:
    """Machine, versions, commit, precision and date."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_before": round(load_before, 2),
            "busy": load_warning(load_before) is not None,
        },
        "versions": _versions(),
        "build": _build(),
        **commit(),
        "precision": {
            "convolutions": "tf32" if cudnn.allow_tf32 else "float32",
            "matrix products": "tf32" if cuda.matmul.allow_tf32 else "float32",
        },
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "rounds": rounds,
    }


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_warning(load: float) -> str | None:
    """A sentence, if the machine is so busy that its times mean little."""
    if load <= 0.5 * cores():
        return None
    return (
        f"WARNING: the load average is {load:.1f} on {cores()} cores. Another program is running, "
        "so these times mean little."
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _build() -> dict[str, Any]:
    try:  # imported here: kernels that do not load must not prevent a report of it
        from fastinterp import build_info
    except ImportError as error:
        return {"built": False, "cuda": False, "error": str(error)}
    return build_info()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available() and torch.version.cuda:
        found |= {"cuda": torch.version.cuda, "driver": driver() or "unknown"}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def driver() -> str | None:
    """Version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def commit() -> dict[str, Any]:
    """{commit, modified}: from git, or from the pack of a checkout that travels without git; both
    None if neither is there."""
    if (ROOT / ".git").exists():
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*/results/*")
        if head is not None and changes is not None:
            return {"commit": head, "modified": bool(changes)}
    if PACK not in os.environ:
        return {"commit": None, "modified": None}
    packed = json.loads((Path(os.environ[PACK]) / ORIGIN).read_text(encoding="utf-8"))
    same = packed["code"] == digest(CODE)
    return {"commit": packed["commit"], "modified": packed["modified"] or not same}


def digest(patterns: tuple[str, ...]) -> str:
    """Of the names and contents of files."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return found.hexdigest()


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
