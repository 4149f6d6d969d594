"""Integrated gradients against captum: seconds, and the memory of a process that computes only
that. `make bench` runs this."""

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

from benchmarks.bench_attacks import Subject, attempt, digits_subject, subject
from benchmarks.utils import Entries, Facts, Group, Thunk
from fastinterp.interpreters import IntegratedGradients

ROOT = Path(__file__).resolve().parents[1]
IMAGES, STEPS, CHUNK = 64, 100, 512
OURS = f"fastinterp, {CHUNK} points at a time"
CAPTUM = f"captum, {CHUNK} points at a time"
CAPTUM_WHOLE = "captum, all points at once (its default)"


@torch.no_grad()  # captum's maps have no graph either
def by_fastinterp(s: Subject, count: int) -> Tensor:
    explain = IntegratedGradients(s.model, STEPS, chunk_size=CHUNK)
    return explain(s.images[:count], s.labels[:count, None])[:, 0]


def by_captum(s: Subject, count: int, chunk: int | None = CHUNK) -> Tensor:
    from captum.attr import IntegratedGradients as Captum

    return Captum(s.model).attribute(
        s.images[:count], target=s.labels[:count], n_steps=STEPS, method="riemann_right",
        internal_batch_size=chunk,
    )  # fmt: skip


# Subject, number of images -> maps [N, 1, H, W].
EXPLAIN: dict[str, Callable[[Subject, int], Tensor]] = {
    OURS: by_fastinterp,
    CAPTUM: by_captum,
    CAPTUM_WHOLE: partial(by_captum, chunk=None),
}


def groups(device: str) -> list[Group]:
    return [
        Group(
            section="integrated gradients",
            title=f"IG, {IMAGES} images of 28x28, {STEPS} steps",
            entries=tuple(EXPLAIN),
            build=partial(build, device),
            ours=OURS,
            baseline=CAPTUM,
            facts=partial(agreement_and_memory, device=device),
            budget=15.0,
        )
    ]


def build(device: str) -> Entries:
    s = subject(device)

    def entry(name: str) -> Thunk:
        if name != OURS:
            import captum  # noqa: F401
        return lambda: EXPLAIN[name](s, IMAGES)

    return {name: attempt(partial(entry, name)) for name in EXPLAIN}


def agreement_and_memory(results: dict[str, Any], device: str = "cpu") -> Facts:
    """Assert that the formulas agree; record how far the maps differ, and each one's peak memory.

    In float32 rounding may put a point of the path on the other side of a ReLU's kink, so the
    formulas are compared in float64. Captum's weights of the points are float32 even there.
    """
    s = subject(device)
    double = replace(s, model=copy.deepcopy(s.model).double(), images=s.images.double())
    expected = EXPLAIN[OURS](double, 4)
    facts: Facts = {}
    for name, maps in results.items():
        exact = _difference(EXPLAIN[name](double, 4), expected)
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


def peak_megabytes(name: str, device: str = "cpu") -> float:
    """Memory that a process needs to explain all images, beyond what it needs for one: that of the
    process on a CPU, of torch's tensors on a GPU."""
    command = [sys.executable, "-m", "benchmarks.bench_integrated_gradients", name, device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _measure_memory(name: str, device: str) -> None:
    s = digits_subject().to(device)
    EXPLAIN[name](s, 1)
    before = _peak(device)
    EXPLAIN[name](s, IMAGES)
    print(json.dumps(round(_peak(device) - before, 1)))


def _peak(device: str) -> float:
    """The most megabytes that this process has held on the device."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with the memory of the parent process
        (line,) = (n for n in status.read_text().splitlines() if n.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def bench(timed, group, entry):
    timed(group, entry)


if __name__ == "__main__":
    _measure_memory(*sys.argv[1:])
