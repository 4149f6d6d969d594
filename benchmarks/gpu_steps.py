"""The steps of gpu_check.py: what each runs, and how long it may take."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

from benchmarks import gpu_pack
from benchmarks.cuda_crash import CRASHES
from benchmarks.gpu_results import Found, Place, run
from benchmarks.record import ROOT
from benchmarks.utils import COMPILED, Group

# Limits in seconds, in the order of the steps: in each part the most valuable come first.
LIMITS = {
    "proof": 60,
    "build": 300,
    "cuda-tests": 200,
    "train": 240,
    "discrepancy": 100,
    "discrepancy-compiled": 120,
    "cam": 60,
    "pgd_step": 60,
    "cam-compiled": 90,
    "pgd_step-compiled": 60,
    "kendall-compiled": 60,
    "kendall": 60,
    "attacks": 120,
    "memcheck": 100,
    "racecheck": 100,
    "released": 60,
    "recipe": 420,
    "recipe-row": 60,
    "tests": 550,
}
STEPS = tuple(LIMITS)
PARTS = {
    1: ("build", "cuda-tests", "train"),
    2: ("build", *STEPS[STEPS.index("discrepancy") : STEPS.index("kendall")]),
    3: ("build", *STEPS[STEPS.index("kendall") : STEPS.index("tests")]),
}
SCRIPTS = {
    "discrepancy": ("discrepancy",),
    "cam": ("cam",),
    "pgd_step": ("pgd_step",),
    "kendall": ("kendall_tau",),
    "train": ("train",),
    "attacks": ("attacks", "integrated_gradients"),
}
TIMED = {step for step in STEPS if step.removesuffix("-compiled") in SCRIPTS}
RECIPE = "mnist-small-int"


def run_step(step: str, place: Place, seconds: float) -> Found:
    if step in TIMED:
        return timed(step, place, seconds)
    if step in ("tests", "cuda-tests"):
        return tests(step, place, seconds)
    if step in ("memcheck", "racecheck"):
        return sanitize(step, place, seconds)
    others = {"proof": prove, "build": build, "released": released}
    return (others | {"recipe": recipe, "recipe-row": recipe_row})[step](place, seconds)


def timed(step: str, place: Place, seconds: float) -> Found:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--steps", step]
    command += ["--out", str(place.out), "--pack", str(place.pack)]
    command += ["--rounds", str(place.rounds), "--inside", str(place.load)]
    return run(command, seconds, place.logs / f"{step}.log")


def build(place: Place, seconds: float) -> Found:
    """Use the kernels of the pack if they run here, else build them."""
    why = gpu_pack.place_extension(place.pack)
    if why is None:
        found = prove(place, seconds)
        if found["passed"]:
            return found | {"carried": True}
        why = "the kernels of the pack do not run here"
    gpu_pack.remove_extension()  # else it would count as newer than its sources
    print(f"{why}; building", flush=True)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    built = run(command, seconds, place.logs / "build.log", {"FASTINTERP_CUDA": "1"})
    built |= {"carried": False, "why": why}
    if not built["passed"]:
        return built
    proved = prove(place, max(seconds - built["seconds"], 30))
    return built | {"passed": proved["passed"], "tail": proved["tail"]}


def prove(place: Place, seconds: float) -> Found:
    command = [sys.executable, "-m", "benchmarks.gpu_kernels", "prove"]
    return run(command, seconds, place.logs / "proof.log", {"FASTINTERP_BACKEND": "native"})


def tests(step: str, place: Place, seconds: float) -> Found:
    report, crashes = place.logs / f"{step}.xml", place.logs / "crashes.txt"
    for path in (report, crashes):
        path.unlink(missing_ok=True)
    marked = "cuda" if step == "cuda-tests" else "not cuda"
    command = [sys.executable, "-m", "pytest", "-v", "-m", marked, f"--junitxml={report}"]
    command += ["-p", "benchmarks.cuda_crash", "--durations=15"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "4"]
    if importlib.util.find_spec("pytest_timeout"):  # a test that hangs ends only its own worker
        command += ["--timeout=100", "--timeout-method=thread"]
    found = run(command, seconds, place.logs / f"{step}.log", {CRASHES: str(crashes)})
    if crashes.exists():
        found["tail"] = crashes.read_text(encoding="utf-8")[-2000:] + found["tail"]
    return judged(found, report)


def judged(found: Found, report: Path) -> Found:
    """Tests that were all skipped have not passed."""
    if not report.exists():
        return found | {"passed": False}
    suites = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for name in counts:
            counts[name] += int(suite.get(name, 0))
    found = found | {"counts": counts}
    if counts["tests"] == counts["skipped"]:
        found["passed"] = False
        found["tail"] += "\ngpu_check: every test was skipped"
    return found


def sanitize(tool: str, place: Place, seconds: float) -> Found:
    """Run our kernels under compute-sanitizer, without torch's caching allocator, inside whose
    segments the tool sees nothing, and without errors of torch's own API calls."""
    sanitizer = _sanitizer()
    if sanitizer is None:
        return {"passed": False, "seconds": 0.0, "tail": "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", "--print-limit", "20"]
    command += ["--report-api-errors", "no", "--kernel-name", "kernel_substring=fastinterp"]
    command += ["--launch-timeout", "0"]  # importing torch takes longer than the default limit
    command += [sys.executable, "-m", "benchmarks.gpu_kernels", "check", "cuda", str(0.6 * seconds)]
    variables = {"FASTINTERP_BACKEND": "native", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return run(command, seconds, place.logs / f"{tool}.log", variables)


def _sanitizer() -> str | None:
    """On the path, or in a toolkit."""
    homes = [Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    homes += [Path(nvcc).resolve().parents[1] for nvcc in [shutil.which("nvcc")] if nvcc]
    homes += sorted(Path("/usr/local").glob("cuda*"))
    folders = [home / place for home in homes for place in ("bin", "compute-sanitizer")]
    named = [shutil.which("compute-sanitizer", path=str(folder)) for folder in folders]
    return shutil.which("compute-sanitizer") or next(filter(None, named), None)


def groups_of(step: str) -> list[Group]:
    """The groups that a step times; of an op's phases both together first. torch.compile has steps
    of its own, since it may be slow or fail."""
    kind, _, compiled = step.partition("-")
    # Imported here: the kernels must be built first.
    scripts = [importlib.import_module(f"benchmarks.bench_{name}") for name in SCRIPTS[kind]]
    groups = [group for script in scripts for group in script.groups("cuda")]
    groups.sort(key=lambda g: g.title.endswith(("forward", "backward")))
    if not compiled:
        return [g.only([name for name in g.entries if name != COMPILED]) for g in groups]
    return [
        g.only(
            (g.baseline, COMPILED, g.ours),
            title=f"{g.title}, torch.compile",
            section=f"{g.section}, torch.compile",
        )
        for g in groups
    ]


def released(place: Place, seconds: float) -> Found:
    """Rows of table 3 for the authors' networks, which were measured on a CPU too."""
    return _row("released", place, place.pack / gpu_pack.NETWORKS, ("normal", "int"), seconds)


def recipe(place: Place, seconds: float) -> Found:
    """The full recipe. If it is stopped it saves its state, and the next call resumes."""
    out = place.runs / RECIPE
    command = [sys.executable, "-m", "fastinterp", "train", RECIPE, "--out", str(out), "--resume"]
    command += ["--device", "cuda", "--data-dir", str(place.pack / gpu_pack.DATA)]
    found = run(command, seconds, place.logs / "recipe.log")
    history = out / "history.json"
    epochs = json.loads(history.read_text(encoding="utf-8")) if history.exists() else []
    if epochs:
        found["epochs"], found["last"] = len(epochs), epochs[-1]
        found["training_seconds"] = sum(epoch["seconds"] for epoch in epochs)
    return found


def recipe_row(place: Place, seconds: float) -> Found:
    return _row("recipe-row", place, place.runs, ("int",), seconds)


def _row(
    step: str, place: Place, networks: Path, methods: tuple[str, ...], seconds: float
) -> Found:
    out = place.logs / f"{step}.json"
    out.unlink(missing_ok=True)  # else rows that it holds would not be measured again
    command = [sys.executable, "-m", "fastinterp", "reproduce", "table3", "--out", str(out)]
    command += ["--networks", str(networks), "--data-dir", str(place.pack / gpu_pack.DATA)]
    command += ["--only", "mnist", *methods, "--device", "cuda"]
    return run(command, seconds, place.logs / f"{step}.log")
