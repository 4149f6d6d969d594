"""Build, test and time everything on the GPU machine at hand: one command, one results file.

    python benchmarks/gpu_check.py [--out FILE] [--skip-build] [--skip-sanitizer]

Run it in a checkout, with any Python that has torch for CUDA, and a CUDA toolkit. It builds the
extension in place, runs all tests (those marked `cuda` above all), runs compute-sanitizer's
memcheck and racecheck on small cases, times kernels and training iterations against plain torch,
and writes benchmarks/results/gpu-<name>-<date>.json, step by step: what was reached is kept even
if a later step fails. The exit status is 0 only if every step passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SANITIZED = """
import torch
from benchmarks.cases import ODD
from fastinterp import ops
for case in ODD:
    features, features_adv, weight, labels, bias = case.tensors(torch.float32, "cuda")
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


def run(command: list[str], seconds: int, log: Path) -> dict[str, object]:
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


def machine() -> dict[str, object]:
    import torch

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    found: dict[str, object] = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    return found


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large device-to-device copy: the floor's unit."""
    import torch

    from benchmarks.timing import side_by_side

    source = torch.rand(2**29, device="cuda")
    target = torch.empty_like(source)
    times = side_by_side({"copy": lambda: target.copy_(source)}, "cuda", rounds=7)
    return 2 * source.nbytes / (times["copy"]["median"] * 1e-6)


def time_ops() -> list[dict[str, object]]:
    from benchmarks.op_times import all_cases
    from benchmarks.timing import side_by_side

    bandwidth = copy_bandwidth()
    rows: list[dict[str, object]] = []
    for title, thunks, least_bytes in all_cases("cuda"):
        times = side_by_side(thunks, "cuda")
        floor = least_bytes / bandwidth * 1e6
        fused = times["fused"]["median"]
        rows.append({
            "case": title,
            "microseconds": times,
            "floor_microseconds": floor,
            "percent_of_floor": 100 * floor / fused,
            "speedup": times["reference"]["median"] / fused,
        })  # fmt: skip
        print(f"{title}: {fused:.1f} us, {rows[-1]['speedup']:.2f}x plain torch", flush=True)
    return rows


def time_training() -> list[dict[str, object]]:
    """One Int iteration with our kernels and with the reference, in turn, in one process."""
    import torch

    from benchmarks.timing import side_by_side
    from fastinterp import IntTrainer, models
    from fastinterp.ops import _backend

    settings = [
        ("MNIST Small", models.small(seed=0), (50, 1, 28, 28), 40),
        ("CIFAR WResnet", models.wresnet(in_channels=3, seed=0), (128, 3, 32, 32), 10),
    ]
    rows: list[dict[str, object]] = []
    for name, model, shape, steps in settings:
        trainer = IntTrainer(model.cuda(), eps=0.3, steps=steps, step_size=0.01)
        x = torch.rand(shape, device="cuda")
        y = torch.randint(10, shape[:1], device="cuda")
        native = _backend._NATIVE_DEVICE_TYPES

        def iterate(kinds, trainer=trainer, x=x, y=y):  # type: ignore[no-untyped-def]
            _backend._NATIVE_DEVICE_TYPES = kinds
            return trainer.training_step(x, y)

        thunks = {"fused": lambda n=native, i=iterate: i(n),
                  "reference": lambda i=iterate: i(frozenset())}  # fmt: skip
        times = side_by_side(thunks, "cuda", rounds=7, least=0.2)
        _backend._NATIVE_DEVICE_TYPES = native
        speedup = times["reference"]["median"] / times["fused"]["median"]
        rows.append({"case": f"Int iteration, {name}, {steps} steps", "microseconds": times,
                     "speedup": speedup})  # fmt: skip
        print(rows[-1]["case"], f"{speedup:.2f}x plain torch", flush=True)
    return rows


def sanitize(tool: str, logs: Path) -> dict[str, object]:
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        return {"passed": False, "tail": "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
    return run(command, 400, logs / f"{tool}.log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--skip-build", action="store_true")
    parser.add_argument("--skip-sanitizer", action="store_true")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA GPU; this script checks the kernels on one.")
        return 2
    os.environ["FASTINTERP_BACKEND"] = "auto"
    results: dict[str, object] = {"machine": machine()}
    gpu = str(results["machine"]["gpu"]).replace(" ", "-").lower()  # type: ignore[index]
    day = datetime.date.today().isoformat()
    out = options.out or ROOT / "benchmarks" / "results" / f"gpu-{gpu}-{day}.json"
    logs = out.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def build() -> dict[str, object]:
        os.environ["FASTINTERP_CUDA"] = "1"
        return run([sys.executable, "setup.py", "build_ext", "--inplace"], 550, logs / "build.log")

    def tests() -> dict[str, object]:
        command = [sys.executable, "-m", "pytest", "-q"]
        return run(command, 550, logs / "tests.log")

    steps = [("tests", tests), ("ops", time_ops), ("training", time_training)]
    if not options.skip_build:
        steps.insert(0, ("build", build))
    if not options.skip_sanitizer:
        for tool in ("memcheck", "racecheck"):
            steps.append((tool, lambda tool=tool: sanitize(tool, logs)))
    for name, step in steps:
        try:
            results[name] = step()
        except Exception as error:  # a later step may still tell something
            results[name] = {"passed": False, "tail": f"{type(error).__name__}: {error}"}
            print(f"{name}: {results[name]['tail']}", flush=True)
        temporary = out.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        temporary.replace(out)
    failed = [n for n, r in results.items() if isinstance(r, dict) and r.get("passed") is False]
    print(f"wrote {out}; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
