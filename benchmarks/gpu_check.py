"""Build, test and time everything on the GPU machine at hand: one command, one results file.

    python benchmarks/gpu_check.py [--out FILE] [--steps STEP ...] [--rounds N]

Run it in a checkout, with any Python that has torch for CUDA, and a CUDA toolkit. The steps:
`build` builds the extension in place, `tests` runs all tests (those marked `cuda` above all),
`ops`, `kendall` and `train` time kernels and training iterations against plain torch, and
`memcheck` and `racecheck` run compute-sanitizer on small cases. benchmarks/results/gpu-<name>.json
is written after each step, and after each group of times: what was reached is kept even if a later
step fails, and steps left out keep what the file held of the same commit. The exit status is 0 only
if every step passed. `make bench-report` shows the file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SANITIZED = """
import torch
from itertools import product
from benchmarks.cases import ODD, MapCase
from fastinterp import ops
clusters = [MapCase(2, 20, 28, 28, 9), MapCase(1, 70, 12, 25, 37), MapCase(1, 900, 7, 9, 5)]
types = (torch.float32, torch.bfloat16, torch.float16)
for case, dtype, layout in product(ODD + clusters, types, ("contiguous", "channels_last")):
    features, features_adv, weight, labels, bias = case.tensors(dtype, "cuda", layout)
    features_adv.requires_grad_()
    weight.requires_grad_()
    ops.discrepancy(features, features_adv, weight, labels, bias=bias).sum().backward()
    alone = features_adv.detach().requires_grad_()
    ops.discrepancy(features, alone, weight.detach(), labels).sum().backward()
    ops.cam(features_adv, weight).sum().backward()
x = torch.rand(3, 3, 17, 19, device="cuda")
for norm in ("linf", "l2", "l1"):
    ops.pgd_step(x, x - 0.5, x, 0.1, 0.05, norm=norm)
torch.cuda.synchronize()
"""


def run(command: list[str], seconds: int, log: Path) -> dict[str, Any]:
    """Run a command with its output in `log`: {passed, seconds, tail}."""
    begin = time.perf_counter()
    print(f"$ {' '.join(command)[:200]}", flush=True)
    with log.open("w", encoding="utf-8") as handle:
        try:
            code = subprocess.run(
                command, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    print(tail[-800:], flush=True)
    return {"passed": code == 0, "seconds": time.perf_counter() - begin, "tail": tail}


def build(logs: Path) -> dict[str, Any]:
    os.environ["FASTINTERP_CUDA"] = "1"
    return run([sys.executable, "setup.py", "build_ext", "--inplace"], 550, logs / "build.log")


def tests(logs: Path) -> dict[str, Any]:
    return run([sys.executable, "-m", "pytest", "-q"], 550, logs / "tests.log")


def sanitize(tool: str, logs: Path) -> dict[str, Any]:
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        return {"passed": False, "tail": "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
    return run(command, 400, logs / f"{tool}.log")


def groups_of(step: str) -> list[Any]:
    """What a step times, on the GPU. Imported late: the build may come first."""
    from benchmarks import kendall_groups, op_groups, train_groups

    rooms: dict[str, Any] = {"ops": op_groups, "kendall": kendall_groups, "train": train_groups}
    groups: list[Any] = rooms[step].all_groups("cuda")
    return groups


class Results:
    """The results file, written after each thing that was learnt."""

    def __init__(self, out: Path, name: str, rounds: int) -> None:
        from benchmarks import machine

        self.out, self.rounds = out, rounds
        about = machine.describe(machine.load(), rounds)
        self.found: dict[str, Any] = {"name": name, **about, "checks": {}, "groups": []}
        before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        if before.get("commit") == about["commit"]:
            self.found |= {key: before[key] for key in ("checks", "groups")}

    def check(self, step: str, found: dict[str, Any]) -> None:
        self.found["checks"][step] = found
        self._write()

    def time(self, step: str) -> dict[str, Any]:
        """Time the groups of a step; it fails if one of them does."""
        from benchmarks.group import measure

        begin, wrong = time.perf_counter(), []
        for group in groups_of(step):
            try:
                record = measure(group, "cuda", self.rounds).record
            except Exception as error:  # the other groups may still be timed
                wrong.append(f"{group.title}: {type(error).__name__}: {error}")
                print(wrong[-1][:500], flush=True)
                continue
            kept = [g for g in self.found["groups"] if g["title"] != group.title]
            self.found["groups"] = [*kept, record]
            self._write()
            for entry in record["entries"]:
                times = f"{entry['microseconds']['median']:.1f} us, {entry.get('ratio', 0):.2f}x"
                print(f"{group.title}: {entry['name']}: {times}", flush=True)
        seconds = time.perf_counter() - begin
        return {"passed": not wrong, "seconds": seconds, "tail": "\n".join(wrong)}

    def _write(self) -> None:
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.out)


STEPS = ("build", "tests", "ops", "kendall", "train", "memcheck", "racecheck")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each entry")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA GPU; this script checks the kernels on one.")
        return 2
    os.environ["FASTINTERP_BACKEND"] = "auto"
    name = "gpu-" + torch.cuda.get_device_name().replace(" ", "-").lower()
    out = options.out or ROOT / "benchmarks" / "results" / f"{name}.json"
    logs = out.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # The build comes before anything that imports fastinterp, which would load the old kernels.
    built = build(logs) if "build" in options.steps else None
    results = Results(out, name, options.rounds)
    if built is not None:
        results.check("build", built)
    for step in STEPS[1:]:
        if step not in options.steps:
            continue
        try:
            if step == "tests":
                found = tests(logs)
            elif step in ("memcheck", "racecheck"):
                found = sanitize(step, logs)
            else:
                found = results.time(step)
        except Exception as error:  # a later step may still tell something
            found = {"passed": False, "tail": f"{type(error).__name__}: {error}"}
            print(f"{step}: {found['tail']}", flush=True)
        results.check(step, found)
    checks = results.found["checks"]
    failed = [step for step, found in checks.items() if not found["passed"]]
    print(f"wrote {out}; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
