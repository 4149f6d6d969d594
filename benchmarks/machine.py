"""What a results file says about where it was measured. No names of machines, no paths."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks import origin, precision

PEERS = ("numpy", "scipy", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "captum")


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def load_warning(load: float) -> str | None:
    """A sentence, if the machine is too busy for its timings to mean much."""
    if load <= 0.5 * cores():
        return None
    return (
        f"WARNING: the load average is {load:.1f} on {cores()} cores; something else is running, "
        "and these timings will tell little."
    )


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(load_before: float, rounds: int) -> dict[str, Any]:
    """Machine, versions, commit, precision and date."""
    gpu = torch.cuda.is_available()
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if gpu else None,
            "load_before": round(load_before, 2),
            "busy": load_warning(load_before) is not None,
        },
        "versions": _versions(),
        "build": _build(),
        **origin.commit(),
        "precision": precision.in_use(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "rounds": rounds,
    }


def _build() -> dict[str, Any]:
    try:  # this late, as kernels that do not load must not keep a report from saying so
        from fastinterp import build_info
    except ImportError as error:
        return {"built": False, "cuda": False, "error": str(error)}
    return build_info()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available() and torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["driver"] = driver() or "unknown"
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
