"""The check of a GPU machine, without a GPU: what its steps start is faked, or fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    cuda_crash,
    gpu_check,
    gpu_kernels,
    gpu_pack,
    gpu_results,
    gpu_steps,
    record,
)
from benchmarks.gpu_results import Place, Results
from benchmarks.gpu_steps import PARTS, STEPS, TIMED
from benchmarks.utils import Group, Measured
from fastinterp import build_info

ROOT = record.ROOT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(record, "driver", lambda: "580.1")
    made = Place("gpu-some-gpu", tmp_path / "out", tmp_path / "pack", "a" * 64, 2, 0.0)
    made.logs.mkdir(parents=True)
    return made


# A command and its limit
def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def test_a_command_says_how_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert gpu_results.run(python("print('well')"), 60, log)["passed"]
    found = gpu_results.run(python("print('begun'); raise SystemExit(3)"), 60, log)
    assert not found["passed"]
    assert "begun" in found["tail"] and "status 3" in found["tail"]
    found = gpu_results.run(python("import os; os.kill(os.getpid(), 11)"), 60, log)
    assert not found["passed"]
    assert "Segmentation fault" in found["tail"] and "SIGSEGV" in found["tail"]
    found = gpu_results.run(["no-such-program"], 60, log)
    assert not found["passed"] and "could not be started" in found["tail"]


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_results, "GRACE", 0.5)
    program = """
        import subprocess, sys, time, signal
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as where a kernel hangs
        def hangs_here(): time.sleep(600)
        hangs_here()
    """
    found = gpu_results.run(python(program), 2, tmp_path / "log")
    assert not found["passed"] and found["seconds"] < 30
    assert "stopped after 2 s" in found["tail"] and "hangs_here" in found["tail"]
    child = int(found["tail"].split()[1])
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child runs on")


def test_a_command_may_save_before_it_is_stopped(tmp_path: Path) -> None:
    program = """
        import time
        print("begun\\n 1%\\r 50%\\r100%")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("saved")
    """
    tail = gpu_results.run(python(program), 2, tmp_path / "log")["tail"]
    assert tail.startswith("begun\n100%\nsaved\n")  # without bars that were overwritten


# Tests
SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="0" skipped="{}"/></testsuites>'


@pytest.mark.parametrize(
    ("tests", "failures", "skipped", "passed"),
    [(9, 0, 2, True), (9, 0, 9, False), (0, 0, 0, False), (9, 1, 0, False)],
)
def test_tests_that_were_all_skipped_have_not_passed(
    tmp_path: Path, tests: int, failures: int, skipped: int, passed: bool
) -> None:
    report = tmp_path / "report.xml"
    ran = {"passed": failures == 0, "seconds": 1.0, "tail": ""}
    assert gpu_steps.judged(ran, report)["passed"] is False  # there is none
    report.write_text(SUITE.format(tests, failures, skipped))
    found = gpu_steps.judged(ran, report)
    assert found["passed"] is passed
    assert found["counts"]["skipped"] == skipped


def test_a_worker_whose_context_breaks_costs_one_test(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_broken.py").write_text(
        textwrap.dedent("""
            import pytest
            from benchmarks import cuda_crash

            @pytest.mark.parametrize("number", range(6))
            def test_number(number):
                if number == 2:
                    cuda_crash.gpu_answers = lambda: False
                assert number not in (2, 4), "illegal access"
        """)
    )
    crashes = tmp_path / "crashes.txt"
    command = [sys.executable, "-m", "pytest", "-p", "benchmarks.cuda_crash", "-n", "1"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)],
        cwd=ROOT, env=os.environ | {cuda_crash.CRASHES: str(crashes)}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert "2 failed, 4 passed" in done.stdout, done.stdout
    assert "test_number[2] broke" in crashes.read_text()
    assert "illegal access" in crashes.read_text() and "[4]" not in crashes.read_text()


# Kernels
def test_the_proof_runs_the_kernels_and_fails_where_none_serve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if build_info()["built"]:
        gpu_kernels.prove("cpu")
        assert "the kernels serve on cpu" in capsys.readouterr().out
    monkeypatch.setattr(gpu_kernels, "backend", lambda device: "reference")
    with pytest.raises(SystemExit, match="no compiled kernels"):
        gpu_kernels.prove("cpu")


def test_what_the_sanitizer_runs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    gpu_kernels.check("cpu", "2")
    assert "checks" in capsys.readouterr().out
    assert len(list(gpu_kernels.checks("cpu"))) > 50


@pytest.mark.parametrize("where", ["CUDA_HOME", "PATH"])
def test_the_sanitizer_is_found_and_asked_for_our_kernels_alone(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    tool = tmp_path / "compute-sanitizer" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tool.parent if where == "PATH" else tmp_path / "none"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path if where == "CUDA_HOME" else ""))
    asked: dict[str, Any] = {}
    monkeypatch.setattr(gpu_steps, "run", lambda *a: asked.update(command=a[0], variables=a[3]))
    gpu_steps.sanitize("racecheck", place, 100)
    assert asked["command"][0] == str(tool)
    assert "kernel_substring=fastinterp" in asked["command"]
    assert asked["variables"]["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


@pytest.mark.skipif(not build_info()["cuda"], reason="built without CUDA kernels")
def test_all_kernels_have_the_name_that_the_sanitizer_looks_for() -> None:
    from fastinterp import _C

    assert b"_ZN10fastinterp11run_program" in Path(_C.__file__).read_bytes()


# The whole
Fake = Callable[..., dict[str, Any]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(record, "driver", lambda: "580.1")
    monkeypatch.setattr(gpu_check.signal, "signal", lambda *_: None)
    for name in ("FASTINTERP_BACKEND", "PATH", "PYTHONPATH", "GIT_PYTHON_REFRESH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # main changes them


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
    return gpu_check.main()


GROUPS = [Group("s", title, (), dict) for title in ("first", "bad", "last")]


@pytest.fixture
def timed_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(group: Group, device: str, rounds: int, strict: bool) -> Measured:
        if group.title == "bad":
            raise RuntimeError("no such kernel")
        return Measured({"title": group.title, "entries": [], "device": device})

    monkeypatch.setattr(gpu_results, "measure", times)
    monkeypatch.setattr(gpu_steps, "groups_of", lambda step: GROUPS)


@pytest.mark.parametrize(("answers", "reached"), [(True, ["first", "last"]), (False, ["first"])])
def test_times_that_were_reached_are_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch, timed_groups: None, answers: bool, reached: Any
) -> None:
    monkeypatch.setattr(gpu_results, "gpu_answers", lambda: answers)
    found = Results(place).time("cam", GROUPS)
    assert not found["passed"]
    assert "no such kernel" in found["tail"]
    assert ("cam: the GPU failed, so the groups after that were not timed." in found["tail"]) == (
        not answers
    )
    Results(place).check("cam", found)
    written = json.loads(place.results.read_text())
    assert [g["title"] for g in written["groups"]] == reached
    assert written["checks"]["cam"]["passed"] is False
    assert written["precision"]["convolutions"] in ("float32", "tf32")


def test_no_gpu_is_said(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(monkeypatch) == 2
    assert "no CUDA GPU" in capsys.readouterr().out


def test_parts_hold_each_step_but_those_that_need_no_gpu_and_begin_with_the_build() -> None:
    held = [step for part in PARTS.values() for step in part if step != "build"]
    assert len(held) == len(set(held))
    assert set(STEPS) - set(held) == {"proof", "build", "tests"}
    assert all(part[0] == "build" for part in PARTS.values())


def test_a_failed_step_loses_no_other_and_the_archive_holds_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None, timed_groups: None
) -> None:
    """Each in its process; here a timed one stays in this, called as it would be there."""

    def run(command: list[str], seconds: float, log: Path, *_: Any) -> dict[str, Any]:
        assert 10 < seconds <= 540
        log.write_text(" ".join(command))
        if "memcheck" in command:
            raise ValueError("ours")
        passed = "--inside" not in command or main(monkeypatch, *command[2:]) == 0
        return {"passed": passed, "seconds": 0.0, "tail": log.name}

    monkeypatch.setattr(gpu_steps, "run", run)
    monkeypatch.setattr(gpu_steps, "_sanitizer", lambda: "compute-sanitizer")
    monkeypatch.setattr(gpu_pack, "place_extension", lambda pack: None)
    out = ("--out", str(tmp_path / "out"), "--pack", str(tmp_path / "none"))
    archives = str(tmp_path / "archives")
    assert main(monkeypatch, *out, "--part", "3", "--archive", archives) == 1
    (archive,) = (tmp_path / "archives").iterdir()
    assert archive.name == "gpu-check-3.tar.gz"
    with tarfile.open(archive) as handle:
        names = handle.getnames()
        written = json.loads(handle.extractfile("gpu-some-gpu.json").read())  # type: ignore[union-attr]
    assert {"logs/kendall.log", "logs/racecheck.log", "logs/recipe.log"} < set(names)
    assert tuple(written["checks"]) == PARTS[3]
    failed = {step for step, found in written["checks"].items() if not found["passed"]}
    assert failed == {*(TIMED & set(PARTS[3])), "memcheck"}
    assert "ours" in written["checks"]["memcheck"]["tail"]
    assert [g["title"] for g in written["groups"]] == ["first", "last"]
    assert written["machine"]["gpu"] == "Some GPU"
    assert written["versions"]["driver"] == "580.1" or torch.version.cuda is None
    assert main(monkeypatch, *out, "--steps", "recipe") == 0  # and what was there stays
    again = json.loads((tmp_path / "out" / "gpu-some-gpu.json").read_text())
    assert again["checks"].keys() == {*PARTS[3], "proof"}
    assert again["groups"] == written["groups"]


@pytest.mark.parametrize("arguments", [("--part", "1"), ("--steps", "cuda-tests")])
def test_kernels_that_do_not_serve_stop_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None,
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...],
) -> None:  # fmt: skip
    ran = []

    def run(command: list[str], *_: Any) -> dict[str, Any]:
        ran.append(command[1:])
        return {"passed": False, "seconds": 1.0, "tail": "no nvcc here"}

    monkeypatch.setattr(gpu_steps, "run", run)
    monkeypatch.setattr(gpu_pack, "HERE", tmp_path / "none.so")
    out = ("--out", str(tmp_path), "--pack", str(tmp_path / "none"))
    assert main(monkeypatch, *out, *arguments) == 1
    assert len(ran) == 1
    assert "no CUDA kernels serve here, so nothing else was run" in capsys.readouterr().out
    (check,) = json.loads((tmp_path / "gpu-some-gpu.json").read_text())["checks"].values()
    assert not check["passed"] and "no nvcc here" in check["tail"]


def test_no_step_begins_without_time_left(place: Place) -> None:
    found = gpu_check.do("cam", place, 5.0)
    assert not found["passed"] and "no time" in found["tail"]


def test_each_timed_step_has_groups_of_the_gpu() -> None:
    titles = [g.title for step in TIMED for g in gpu_steps.groups_of(step)]
    assert len(titles) == len(set(titles)) > 50
    assert gpu_steps.groups_of("discrepancy")[0].title.endswith("both")


# Results put together
def test_archives_of_the_same_code_make_one_file(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = []
    for number, step in enumerate(("cam", "kendall")):
        results = Results(Place(place.name, tmp_path / step, place.pack, place.library, 2, 0.0))
        results.found["groups"] = [{"title": step}, {"title": "both", "number": number}]
        results.found["date"] = f"2026-01-0{number + 1}"
        results.check(step, {"passed": step == "cam"})
        archives.append(tmp_path / f"{step}.tar.gz")
        gpu_results.write_archive(archives[-1], results.path, tmp_path / "nothing")
    assert gpu_results.collect(archives[::-1], tmp_path / "all") == 0
    assert "failed: kendall" in capsys.readouterr().out
    written = json.loads((tmp_path / "all" / f"{place.name}.json").read_text())
    assert set(written["checks"]) == {"cam", "kendall"}
    assert written["groups"] == [{"title": "cam"}, {"title": "kendall"},
                                 {"title": "both", "number": 1}]  # fmt: skip
    results.found["library"] = "b" * 64
    results.check("cam", {"passed": True})
    gpu_results.write_archive(archives[1], results.path)
    assert gpu_results.collect(archives, tmp_path / "other") == 1
    assert not (tmp_path / "other").exists()
