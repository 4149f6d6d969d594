"""Build, test and time everything on the GPU machine at hand: one command, one results file.

    python benchmarks/gpu_check.py [--out FILE] [--steps STEP ...] [--rounds N]

Run it in a checkout, with any Python that has torch for CUDA, and a CUDA toolkit. The steps:

- `build` builds the extension in place;
- `cuda-tests` runs the tests that are marked `cuda`, `tests` all others;
- `discrepancy`, `cam`, `pgd_step` and `kendall` time kernels, `train` training iterations, and
  `attacks` attacks, sweeps and integrated gradients, against plain torch and other libraries;
- `memcheck` and `racecheck` run compute-sanitizer on small cases.

Each is stopped before ten minutes are over, so where a machine is lent for no longer, give one step
an invocation. benchmarks/results/gpu-<name>.json is written after each step, and after each group
of times: what was reached is kept even if a later step fails, and steps left out keep what the file
held of the same commit. The exit status is 0 only if every step in the file passed.
`make bench-report` shows the file.
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
    ops.discrepancy_and_gradient(features, alone.detach(), weight.detach(), labels, bias=bias)
for length in (2, 49, 784, 5000):
    a = torch.randn(3, length, device="cuda")
    ops.kendall_tau(a, (a + torch.randn_like(a)).round(decimals=1))
x = torch.rand(3, 3, 17, 19, device="cuda")
for norm in ("linf", "l2", "l1"):
    ops.pgd_step(x, x - 0.5, x, 0.1, 0.05, norm=norm)
torch.cuda.synchronize()
"""


LIMIT = 550  # seconds of a step


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
            handle.write(f"\ngpu_check: stopped after {seconds} s\n")
    tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    print(tail[-800:], flush=True)
    return {"passed": code == 0, "seconds": time.perf_counter() - begin, "tail": tail}


def build(logs: Path) -> dict[str, Any]:
    os.environ["FASTINTERP_CUDA"] = "1"
    return run([sys.executable, "setup.py", "build_ext", "--inplace"], LIMIT, logs / "build.log")


def tests(step: str, logs: Path) -> dict[str, Any]:
    marked = "cuda" if step == "cuda-tests" else "not cuda"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked]
    return run(command, LIMIT, logs / f"{step}.log")


def sanitize(tool: str, logs: Path) -> dict[str, Any]:
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        return {"passed": False, "tail": "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
    return run(command, LIMIT, logs / f"{tool}.log")


def groups_of(step: str) -> list[Any]:
    """What a step times, on the GPU. Imported late: the build may come first."""
    from benchmarks import attack_groups, kendall_groups, op_groups, train_groups

    rooms: dict[str, Any] = {
        "discrepancy": op_groups.discrepancy_groups,
        "cam": op_groups.cam_groups,
        "pgd_step": op_groups.step_groups,
        "kendall": kendall_groups.all_groups,
        "train": train_groups.all_groups,
        "attacks": attack_groups.all_groups,
    }
    return list(rooms[step]("cuda"))


def gpu_answers() -> bool:
    """Not after an illegal access: every later call of the process fails with the same error."""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


class Results:
    """The results file, written after each thing that was learnt."""

    def __init__(self, out: Path, name: str, rounds: int, load: float) -> None:
        from benchmarks import machine

        self.out, self.rounds = out, rounds
        about = machine.describe(load, rounds)
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
                wrong.append(f"{group.title}: {type(error).__name__}: {str(error)[:500]}")
                print(wrong[-1], flush=True)
                if gpu_answers():
                    continue
                wrong.append(f"{step}: the GPU failed, so the groups after that were not timed.")
                break
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


TESTS = ("cuda-tests", "tests")
TIMED = ("discrepancy", "cam", "pgd_step", "kendall", "train", "attacks")
SANITIZERS = ("memcheck", "racecheck")
STEPS = ("build", *TESTS, *TIMED, *SANITIZERS)


def main() -> int:
    options = _options()
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA GPU; this script checks the kernels on one.")
        return 2
    os.environ["FASTINTERP_BACKEND"] = "auto"
    name = "gpu-" + torch.cuda.get_device_name().replace(" ", "-").lower()
    out = (options.out or ROOT / "benchmarks" / "results" / f"{name}.json").resolve()
    if options.inside is not None:
        (step,) = options.steps
        found = Results(out, name, options.rounds, options.inside).time(step)
        print(found["tail"], flush=True)
        return 0 if found["passed"] else 1
    logs = out.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]  # before anything of ours runs
    for step in (step for step in STEPS if step in options.steps):
        found = do(step, out, options.rounds, load, logs)
        # The results anew, because a timed step writes the file as well.
        Results(out, name, options.rounds, load).check(step, found)
    checks = json.loads(out.read_text(encoding="utf-8"))["checks"]
    failed = [step for step, found in checks.items() if not found["passed"]]
    print(f"wrote {out}; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP",
        help=f"some of {', '.join(STEPS)}; otherwise all",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each entry")
    # How `do` times a step in a process of its own; the number is the machine's load before.
    parser.add_argument("--inside", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def do(step: str, out: Path, rounds: int, load: float, logs: Path) -> dict[str, Any]:
    """One step in processes of its own, which nothing that another did to the GPU can reach."""
    if step == "build":
        return build(logs)
    if step in TESTS:
        return tests(step, logs)
    if step in SANITIZERS:
        return sanitize(step, logs)
    command = [sys.executable, str(Path(__file__).resolve()), "--steps", step]
    command += ["--out", str(out), "--rounds", str(rounds), "--inside", str(load)]
    return run(command, LIMIT, logs / f"{step}.log")


if __name__ == "__main__":
    sys.exit(main())
