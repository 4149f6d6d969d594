"""Integrated gradients against captum: seconds, and the memory of a process that does only that."""

from __future__ import annotations

import copy
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.attack_peers import missing
from benchmarks.group import Entries, Facts, Group
from benchmarks.subject import Subject, digits_subject, subject
from fastinterp.interpreters import IntegratedGradients

ROOT = Path(__file__).resolve().parents[1]
IMAGES, STEPS, CHUNK = 64, 100, 512
OURS = f"fastinterp, {CHUNK} points at a time"
CAPTUM = f"captum, {CHUNK} points at a time"
CAPTUM_WHOLE = "captum, all points at once (its default)"
Explain = Callable[[Subject, int], Tensor]  # subject, images -> maps [N, 1, H, W]


@torch.no_grad()  # captum's maps have no graph either
def _ours(s: Subject, count: int) -> Tensor:
    explain = IntegratedGradients(s.model, STEPS, chunk_size=CHUNK)
    return explain(s.images[:count], s.labels[:count, None])[:, 0]


def _captum(s: Subject, count: int, chunk: int | None = CHUNK) -> Tensor:
    from captum.attr import IntegratedGradients as Captum

    x, y = s.images[:count], s.labels[:count]
    maps: Tensor = Captum(s.model).attribute(
        x, target=y, n_steps=STEPS, method="riemann_right", internal_batch_size=chunk
    )
    return maps


def _captum_whole(s: Subject, count: int) -> Tensor:
    return _captum(s, count, None)


EXPLAIN: dict[str, Explain] = {OURS: _ours, CAPTUM: _captum, CAPTUM_WHOLE: _captum_whole}


def ig_group(device: str) -> Group:
    return Group(
        section="integrated gradients",
        title=f"IG, {IMAGES} images of 28x28, {STEPS} steps",
        entries=tuple(EXPLAIN),
        build=partial(_build, device),
        ours=OURS,
        baseline=CAPTUM,
        facts=partial(agreement_and_memory, device=device),
        budget=15.0,
    )


def _build(device: str = "cpu") -> Entries:
    s = subject(device)
    entries: Entries = {OURS: lambda: _ours(s, IMAGES)}
    for name in (CAPTUM, CAPTUM_WHOLE):
        try:
            import captum  # noqa: F401
        except Exception as error:
            entries[name] = missing(error)
        else:
            entries[name] = lambda explain=EXPLAIN[name]: explain(s, IMAGES)  # type: ignore[misc]
    return entries


def agreement_and_memory(results: dict[str, Any], device: str = "cpu") -> Facts:
    """Assert that the formulas agree; record how far the maps differ, and each one's peak memory.

    In float32 a point of the path may fall on the other side of a ReLU's kink, so the formulas
    are compared in float64; captum's weights of the points are of float32 even there.
    """
    facts: Facts = {}
    for name, maps in results.items():
        exact = _difference(*(_in_float64(n, device) for n in (name, OURS)))
        assert exact < torch.finfo(torch.float32).eps, (
            f"{name} differs from ours by {exact} of the largest entry"
        )
        facts[name] = {
            "difference": _difference(maps, results[OURS]),
            "peak_megabytes": peak_megabytes(name, device),
        }
    return facts


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest, as a share of the largest entry."""
    return float((a - b).abs().max() / b.abs().max())


def _in_float64(name: str, device: str) -> Tensor:
    s = subject(device)
    double = replace(s, model=copy.deepcopy(s.model).double(), images=s.images.double())
    return EXPLAIN[name](double, 4)


def peak_megabytes(name: str, device: str = "cpu") -> float:
    """What explaining all images adds to the memory of a process that has explained one: its own
    on a CPU, torch's tensors on a GPU."""
    command = [sys.executable, "-m", "benchmarks.ig_groups", name, device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _measure_memory(name: str, device: str) -> None:
    s = digits_subject().to(device)
    EXPLAIN[name](s, 1)
    before = _peak(device)
    EXPLAIN[name](s, IMAGES)
    print(json.dumps(round(_peak(device) - before, 1)))


def _peak(device: str) -> float:
    """Megabytes, the most that this process has held on the device."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins at what the parent process held
        (line,) = (n for n in status.read_text().splitlines() if n.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _measure_memory(*sys.argv[1:])
