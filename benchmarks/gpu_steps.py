"""The steps of gpu_check.py: what each runs, and how long it may take."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_pack, origin
from benchmarks.cuda_crash import CRASHES
from benchmarks.gpu_run import ROOT, Found, run

# Seconds, in the order of the steps: in each part the most valuable come first.
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
TIMED = {
    *("train", "discrepancy", "cam", "pgd_step", "kendall", "attacks"),
    *("discrepancy-compiled", "cam-compiled", "pgd_step-compiled", "kendall-compiled"),
}
RECIPE = "mnist-small-int"


@dataclass(frozen=True)
class Place:
    """Where a command runs.

    Attributes:
        name: of the results file.
        out: its folder.
        pack: the folder that was carried here; it need not exist.
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
        """What of the pack the steps' processes find in their environment."""
        found = {"FASTINTERP_BACKEND": "auto", "GIT_PYTHON_REFRESH": "quiet"}  # foolbox's git
        named = {
            origin.PACK: self.pack / origin.FILE,
            "FASTINTERP_BENCH_NETWORKS": self.pack / gpu_pack.NETWORKS,
            "FASTINTERP_BENCH_DATA_DIR": self.pack / gpu_pack.DATA,
        }
        found |= {name: str(path) for name, path in named.items() if path.exists()}
        if origin.PACK in found:
            found[origin.PACK] = str(self.pack)
        # ninja is often installed beside a Python that is not the one on the path.
        tools = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        peers = [str(self.pack / gpu_pack.PACKAGES), os.environ.get("PYTHONPATH", "")]
        return found | {
            "PATH": os.pathsep.join(filter(None, tools)),
            "PYTHONPATH": os.pathsep.join(filter(None, peers)),
        }


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
    """The carried kernels if they serve here, else those that are built here."""
    why = gpu_pack.place_extension(place.pack)
    if why is None:
        found = prove(place, seconds)
        if found["passed"]:
            return found | {"carried": True}
        why = "the carried kernels do not serve here"
    gpu_pack.remove_extension()  # one that stayed would count as newer than its sources
    print(f"{why}; building", flush=True)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    built = run(command, seconds, place.logs / "build.log", {"FASTINTERP_CUDA": "1"})
    built |= {"carried": False, "why": why}
    if not built["passed"]:
        return built
    proved = prove(place, max(seconds - built["seconds"], 30))
    return built | {"passed": proved["passed"], "tail": proved["tail"]}


def prove(place: Place, seconds: float) -> Found:
    command = [sys.executable, "-m", "benchmarks.gpu_proof"]
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
    if importlib.util.find_spec("pytest_timeout"):  # a test that hangs costs its worker alone
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
    """Our kernels alone, and each allocation of its own, as the tool sees nothing inside torch's
    pools. What torch's own calls report, such as questions that a driver cannot answer, is not
    ours."""
    sanitizer = _sanitizer()
    if sanitizer is None:
        return {"passed": False, "seconds": 0.0, "tail": "compute-sanitizer was not found"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", "--print-limit", "20"]
    command += ["--report-api-errors", "no", "--kernel-name", "kernel_substring=fastinterp"]
    command += ["--launch-timeout", "0"]  # until torch is imported there is nothing to attach to
    command += [sys.executable, "-m", "benchmarks.sanitized", "cuda", str(0.6 * seconds)]
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


def groups_of(step: str) -> list[Any]:
    """What a step times, on the GPU: of an op's phases both together first. torch.compile stands
    apart, since it may be slow, or fail."""
    from benchmarks import attack_groups, kendall_groups, op_groups, train_groups
    from benchmarks.compiled import beside_compiler, without_compiler

    kinds: dict[str, Any] = {
        "discrepancy": op_groups.discrepancy_groups,
        "cam": op_groups.cam_groups,
        "pgd_step": op_groups.step_groups,
        "kendall": kendall_groups.all_groups,
        "train": train_groups.all_groups,
        "attacks": attack_groups.all_groups,
    }
    kind, _, compiled = step.partition("-")
    groups = sorted(kinds[kind]("cuda"), key=lambda g: g.title.endswith(("forward", "backward")))
    return beside_compiler(groups) if compiled else without_compiler(groups)


def released(place: Place, seconds: float) -> Found:
    """Table 3's rows of the authors' networks, which a CPU has measured too."""
    return _row("released", place, place.pack / gpu_pack.NETWORKS, ("normal", "int"), seconds)


def recipe(place: Place, seconds: float) -> Found:
    """The full recipe. Stopped, it saves its state, with which the next call goes on."""
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
    out.unlink(missing_ok=True)  # what it holds would not be measured again
    command = [sys.executable, "-m", "fastinterp", "reproduce", "table3", "--out", str(out)]
    command += ["--networks", str(networks), "--data-dir", str(place.pack / gpu_pack.DATA)]
    command += ["--only", "mnist", *methods, "--device", "cuda"]
    return run(command, seconds, place.logs / f"{step}.log")
