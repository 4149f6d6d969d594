"""Timing, recording and reporting; no test here says how long anything takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check, machine
from benchmarks.group import Group, Measured, Skipped, measure
from benchmarks.picture import draw
from benchmarks.recorder import Recorder
from benchmarks.report import ROOT, main, read_results
from benchmarks.tables import duration, page
from benchmarks.timing import samples, summary


def group(title: str = "a, b", **changes: Any) -> Group:
    settings: dict[str, Any] = {
        "section": "a",
        "title": title,
        "entries": ("reference", "fused", "copy", "absent"),
        "build": lambda: {
            "reference": lambda: sum(range(2000)),
            "fused": lambda: sum(range(1000)),
            "copy": lambda: None,
            "absent": Skipped("not here"),
        },
        "floor": ("copy", "absent"),
        "facts": lambda results: {"fused": {"difference": float(results["fused"])}},
        "least": 0.0,
    }
    return Group(**(settings | changes))


def test_entries_are_timed_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = samples(runs, rounds=4, least=0.0)
    assert [len(s) for s in found.values()] == [4, 4]
    assert calls[-16:] == list("aabb" * 4)  # each time once unmeasured, then once measured
    assert set(calls[:-16]) == {"a", "b"}


def test_slow_entries_run_no_more_often_than_they_are_timed(monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.timing.BRIEF", 0.0)
    monkeypatch.setattr("benchmarks.timing.SLOW", 0.0)
    calls: list[str] = []
    samples({"a": lambda: calls.append("a")}, rounds=4, least=0.0)
    assert len(calls) == 5  # one to see how slow it is


def test_a_first_run_that_sets_something_up_makes_no_entry_slow() -> None:
    calls: list[str] = []

    def run() -> None:
        calls.append("a")
        if len(calls) == 1:
            time.sleep(0.15)

    samples({"a": run}, rounds=4, least=0.0)
    assert len(calls) > 2 + 4 * 2  # brief: an unmeasured run before each of four measurements


def test_a_spent_budget_leaves_three_rounds() -> None:
    assert len(samples({"a": lambda: None}, rounds=9, least=0.0, budget=0.0)["a"]) == 3


def test_summary_gives_median_and_quartiles_in_microseconds() -> None:
    found = summary([1e-6, 5e-6, 2e-6, 4e-6, 3e-6])
    assert found == pytest.approx({"lower": 2, "median": 3, "upper": 4})


def test_a_record_holds_ratio_share_of_the_floor_and_facts() -> None:
    record = measure(group(), "cpu", rounds=3).record
    by_name = {entry["name"]: entry for entry in record["entries"]}
    medians = {name: entry["microseconds"]["median"] for name, entry in by_name.items()}
    fused = by_name["fused"]
    assert fused["ratio"] == medians["reference"] / medians["fused"]
    assert record["floor"] == "copy, or absent"
    assert fused["percent_of_floor"] == 100 * medians["copy"] / medians["fused"]
    assert fused["difference"] == sum(range(1000))
    assert by_name["reference"]["ratio"] == 1
    assert record["skipped"] == {"absent": "not here"}


def test_the_slowest_of_several_is_the_floor() -> None:
    record = measure(group(floor=("copy", "reference")), "cpu", rounds=3).record
    by_name = {entry["name"]: entry for entry in record["entries"]}
    assert by_name["reference"]["percent_of_floor"] == 100
    assert "percent_of_floor" not in measure(group(floor=()), "cpu", 2).record["entries"][0]


def test_a_group_builds_what_it_declares() -> None:
    with pytest.raises(ValueError, match="declared"):
        measure(group(entries=("reference",)), "cpu", rounds=2)


def test_a_file_is_written_when_all_its_groups_were_measured(tmp_path: Path) -> None:
    recorder = Recorder(rounds=2)
    first, second = group("first"), group("second")
    recorder.plan("cpu-x", [first, second])
    assert recorder.measure("cpu-x", first, "cpu") is recorder.measure("cpu-x", first, "cpu")
    assert "1 of its groups" in recorder.write(tmp_path, {})[0]
    assert not list(tmp_path.iterdir())
    recorder.measure("cpu-x", second, "cpu")
    recorder.write(tmp_path, {"commit": "c"})
    written = json.loads((tmp_path / "cpu-x.json").read_text())
    assert [g["title"] for g in written["groups"]] == ["first", "second"]
    assert (written["name"], written["commit"]) == ("cpu-x", "c")


def test_a_group_that_fails_fails_for_each_entry_and_is_not_written(tmp_path: Path) -> None:
    def disagree(results: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("they differ")

    recorder = Recorder(rounds=2)
    bad = group(facts=disagree)
    recorder.plan("cpu-x", [bad])
    for _ in range(2):
        with pytest.raises(AssertionError, match="they differ"):
            recorder.measure("cpu-x", bad, "cpu")
    recorder.write(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert machine.load_warning(2.0) is None
    assert "2.1 on 4 cores" in str(machine.load_warning(2.1))
    assert machine.describe(2.1, 5)["machine"]["busy"] is True


def test_no_name_or_path_of_the_machine_is_recorded() -> None:
    import platform

    text = json.dumps(machine.describe(0.0, 5))
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert platform.node() not in text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0.5, "0.5 us"),
        (999, "999 us"),
        (999.7, "1 ms"),
        (1234, "1.23 ms"),
        (1_500_000, "1.5 s"),
        (6e7, "60 s"),
    ],
)
def test_durations(microseconds: float, text: str) -> None:
    assert duration(microseconds) == text


def results() -> list[dict[str, Any]]:
    plain = [group(f"case {i}, both") for i in range(3)]
    grown = [group(f"grown {i}", section="growth", axis=("batch", i)) for i in (10, 20)]
    groups = [measure(g, "cpu", rounds=3).record for g in [*plain, *grown]]
    about = machine.describe(9.0, 3) | {"checks": {"memcheck": {"passed": False}}}
    return json.loads(json.dumps([{"name": "cpu-x", **about, "groups": groups}]))  # type: ignore[no-any-return]


def test_the_page_shows_each_group_check_and_reason() -> None:
    found = results()
    text = page(found, picture=True)
    for record in found[0]["groups"]:
        fused = record["entries"][1]
        assert f"{fused['ratio']:.2f}" in text
        assert duration(fused["microseconds"]["median"]) in text
    assert "| memcheck | FAILED |" in text
    assert "Left out: absent: not here" in text
    assert "The machine was busy" in text
    assert "No results files" in page([], picture=False)


def test_report_writes_page_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu-x.json").write_text(json.dumps(results()[0]))
    folders = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", ["report", *folders])
    main()
    assert "case 1" in (tmp_path / "docs" / "benchmarks.md").read_text()
    assert (tmp_path / "docs" / "images" / "benchmarks.png").stat().st_size > 1000


def test_nothing_to_draw_draws_nothing(tmp_path: Path) -> None:
    assert draw([{"name": "cpu-x", "groups": []}], tmp_path / "picture.png") is False
    assert not list(tmp_path.iterdir())


def test_the_documented_page_is_made_of_the_results_that_lie_here() -> None:
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    found = read_results(ROOT / "benchmarks" / "results")
    picture = (ROOT / "docs" / "images" / "benchmarks.png").exists()
    assert documented == page(found, picture), "run `make bench-report`"


@pytest.fixture
def timed_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(group: Group, device: str, rounds: int) -> Measured:
        if group.title == "bad":
            raise RuntimeError("no such kernel")
        return Measured({"title": group.title, "entries": [], "device": device})

    monkeypatch.setattr("benchmarks.group.measure", times)
    groups = [group("first"), group("bad"), group("last")]
    monkeypatch.setattr(gpu_check, "groups_of", lambda step: groups)


@pytest.mark.parametrize(("answers", "reached"), [(True, ["first", "last"]), (False, ["first"])])
def test_gpu_check_keeps_what_it_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed_groups: None, answers: bool, reached: Any
) -> None:
    monkeypatch.setattr(gpu_check, "gpu_answers", lambda: answers)
    out = tmp_path / "gpu-x.json"
    found = gpu_check.Results(out, "gpu-x", 2, 0.0).time("cam")
    assert not found["passed"]
    assert "no such kernel" in found["tail"]
    assert ("cam: the GPU failed, so the groups after that were not timed." in found["tail"]) == (
        not answers
    )
    again = gpu_check.Results(out, "gpu-x", 2, 0.0)
    again.check("cam", found)
    written = json.loads(out.read_text())
    assert [g["title"] for g in written["groups"]] == reached
    assert written["checks"]["cam"]["passed"] is False


def test_gpu_check_runs_steps_apart_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed_groups: None
) -> None:
    """Each in its process; here a timed one stays in this, called as it would be there."""
    ran = []

    def run(command: list[str], seconds: int, log: Path) -> dict[str, Any]:
        ran.append(command)
        assert seconds < 600
        passed = "--inside" not in command or main(command[2:]) == 0
        return {"passed": passed, "seconds": 0.0, "tail": log.name}

    def main(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
        return gpu_check.main()

    monkeypatch.setattr(gpu_check, "run", run)
    monkeypatch.setattr(gpu_check, "gpu_answers", lambda: True)
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: sys.executable)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(machine, "describe", lambda load, rounds: {"commit": "c", "load": load})
    monkeypatch.setenv("FASTINTERP_BACKEND", "auto")
    monkeypatch.setenv("FASTINTERP_CUDA", "1")
    out = tmp_path / "gpu-x.json"
    assert main(["--out", str(out)]) == 1
    written = json.loads(out.read_text())
    assert written["name"] == "gpu-some-gpu"
    assert tuple(written["checks"]) == gpu_check.STEPS
    failed = [step for step, found in written["checks"].items() if not found["passed"]]
    assert failed == list(gpu_check.TIMED)
    assert [g["title"] for g in written["groups"]] == ["first", "last"]
    assert [c[c.index("-m", 3) + 1] for c in ran if "pytest" in c] == ["cuda", "not cuda"]
    ran.clear()
    assert main(["--out", str(out), "--steps", "tests"]) == 1  # the file's other checks failed
    assert len(ran) == 1


def test_each_timed_step_has_groups_of_the_gpu() -> None:
    titles = [g.title for step in gpu_check.TIMED for g in gpu_check.groups_of(step)]
    assert len(titles) == len(set(titles)) > 50


def test_a_step_that_takes_too_long_is_stopped_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"]
    found = gpu_check.run(command, 2, tmp_path / "log")
    assert not found["passed"]
    assert "begun" in found["tail"] and "stopped after 2 s" in found["tail"]


def test_what_the_sanitizer_runs_runs() -> None:
    program = gpu_check.SANITIZED.replace("torch.cuda.synchronize()", "")
    exec(program.replace('"cuda"', '"cpu"'), {})
