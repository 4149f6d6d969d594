"""The words that several figures share."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from ..._utils import processes
from ..results import ResultRow

LABELS = {
    "normal": "Normal",
    "adv": "Adv",
    "trades": "TRADES",
    "ig-norm": "IG-Norm",
    "ig-norm-sum": "IG-Norm-Sum",
    "int": "Int",
    "int-adv": "Int-Adv",
    "int-1-class": "Int-1-class",
}
"""The training methods as the paper spells them."""


def device_name(device: torch.device) -> str:
    """The name of a device as people know it, such as that of its CPU or GPU."""
    several = f", {processes.world()} processes" if processes.world() > 1 else ""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + several
    if device.type != "cpu":
        return device.type + several
    threads = torch.get_num_threads()
    return f"{_cpu()}, {threads} thread{'s' if threads > 1 else ''}{several}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or f"a CPU ({os.cpu_count()} cores)"


def sources(rows: list[ResultRow]) -> str:
    """The recipes of the networks of some rows, in words, such as "networks: released"."""
    found = dict.fromkeys(row["recipe"] or "released" for row in rows if row["network"] is not None)
    return f"networks: {', '.join(found) or 'none'}"
