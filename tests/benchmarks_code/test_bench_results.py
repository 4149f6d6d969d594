"""Timing, recording and reporting; no test here says how long anything takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_train, record, utils
from benchmarks.picture import draw
from benchmarks.record import ROOT, Recorder
from benchmarks.report import duration, main, page, read_results
from benchmarks.utils import Group, Thunk, measure, summary, unavailable


def group(title: str = "a, b", **changes: Any) -> Group:
    settings: dict[str, Any] = {
        "section": "a",
        "title": title,
        "entries": ("reference", "fused", "copy", "absent"),
        "build": lambda: {
            "reference": lambda: sum(range(2000)),
            "fused": lambda: sum(range(1000)),
            "copy": lambda: None,
            "absent": unavailable("not here"),
        },
        "floor": ("copy", "absent"),
        "facts": lambda results: {"fused": {"difference": float(results["fused"])}},
        "least": 0.0,
    }
    return Group(**(settings | changes))


def disagree(results: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("they differ")


# Timing
def samples(
    runs: dict[str, Thunk], rounds: int = 4, budget: float = 60.0
) -> dict[str, list[float]]:
    return utils.samples(runs, "cpu", rounds, least=0.0, budget=budget)


def test_entries_are_timed_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    found = samples({name: lambda name=name: calls.append(name) for name in "ab"})
    assert [len(s) for s in found.values()] == [4, 4]
    assert calls[-16:] == list("aabb" * 4)  # each time once unmeasured, then once measured
    assert set(calls[:-16]) == {"a", "b"}


def test_slow_entries_run_no_more_often_than_they_are_timed(monkeypatch) -> None:
    monkeypatch.setattr(utils, "BRIEF", 0.0)
    monkeypatch.setattr(utils, "SLOW", 0.0)
    calls: list[str] = []
    samples({"a": lambda: calls.append("a")})
    assert len(calls) == 5  # one to see how slow it is


def test_a_slow_first_run_makes_no_entry_slow() -> None:
    calls: list[str] = []

    def run() -> None:
        calls.append("a")
        if len(calls) == 1:
            time.sleep(0.15)

    samples({"a": run})
    assert len(calls) > 2 + 4 * 2  # brief: an unmeasured run before each of four measurements


def test_a_spent_budget_leaves_three_rounds() -> None:
    assert len(samples({"a": lambda: None}, rounds=9, budget=0.0)["a"]) == 3


def test_summary_gives_median_and_quartiles_in_microseconds() -> None:
    found = summary([1e-6, 5e-6, 2e-6, 4e-6, 3e-6])
    assert found == pytest.approx({"lower": 2, "median": 3, "upper": 4})


# Groups
def test_a_record_holds_ratio_share_of_the_floor_precision_and_facts() -> None:
    found = measure(group(precision={"fused": "tf32"}), "cpu", rounds=3).record
    by_name = {entry["name"]: entry for entry in found["entries"]}
    medians = {name: entry["microseconds"]["median"] for name, entry in by_name.items()}
    fused, reference = by_name["fused"], by_name["reference"]
    assert found["floor"] == "copy, or absent"
    assert found["skipped"] == {"absent": "not here"}
    assert fused["ratio"] == medians["reference"] / medians["fused"]
    assert fused["percent_of_floor"] == 100 * medians["copy"] / medians["fused"]
    assert fused["difference"] == sum(range(1000))
    assert reference["ratio"] == 1
    assert (fused["precision"], reference["precision"]) == ("tf32", "float32")


def test_the_slowest_of_several_is_the_floor() -> None:
    found = measure(group(floor=("copy", "reference")), "cpu", rounds=3).record
    by_name = {entry["name"]: entry for entry in found["entries"]}
    assert by_name["reference"]["percent_of_floor"] == 100
    assert "percent_of_floor" not in measure(group(floor=()), "cpu", 2).record["entries"][0]


def test_a_group_builds_what_it_declares() -> None:
    with pytest.raises(ValueError, match="declared"):
        measure(group(entries=("reference",)), "cpu", rounds=2)
    fewer = group().only(["reference", "fused"], title="fewer")
    assert set(fewer.build()) == {"reference", "fused"}
    assert (fewer.title, fewer.floor) == ("fewer", ())


def failing(entry: str) -> Group:
    return group(build=lambda: group().build() | {entry: lambda: 1 / 0})


def test_an_entry_that_fails_costs_no_other_unless_strict() -> None:
    with pytest.raises(ZeroDivisionError):
        measure(failing("copy"), "cpu", rounds=2)
    found = measure(failing("copy"), "cpu", rounds=2, strict=False)
    assert found.failed == {"copy": "ZeroDivisionError: division by zero"}
    assert found.record["failed"] == found.failed
    assert [entry["name"] for entry in found.record["entries"]] == ["reference", "fused"]
    with pytest.raises(ZeroDivisionError):  # without ours there is nothing to compare
        measure(failing("fused"), "cpu", rounds=2, strict=False)


def test_results_that_disagree_are_recorded_beside_their_times() -> None:
    found = measure(group(facts=disagree), "cpu", rounds=2, strict=False).record
    assert found["failed"] == {"results": "AssertionError: they differ"}
    assert len(found["entries"]) == 3


def test_tf32_is_for_its_entries_alone() -> None:
    def precision() -> dict[str, str]:
        return record.about(0.0, 2)["precision"]

    utils.use_tf32(False)
    seen = []
    run = bench_train.in_tf32(
        lambda: seen.append(precision()) or (lambda: seen.append(precision()))
    )
    exact = {"convolutions": "float32", "matrix products": "float32"}
    assert precision() == exact
    run()
    run()
    assert precision() == exact
    assert seen == [dict.fromkeys(exact, "tf32")] * 3


# Files
def test_a_file_is_written_when_all_its_groups_were_measured(tmp_path: Path) -> None:
    recorder = Recorder(2, {"cpu-x": ["first", "second"]})
    first = recorder.measure("cpu-x", group("first"))
    assert recorder.measure("cpu-x", group("first")) is first
    assert "1 of its groups" in recorder.write(tmp_path, {})[0]
    assert not list(tmp_path.iterdir())
    recorder.measure("cpu-x", group("second"))
    recorder.write(tmp_path, {"commit": "c"})
    (written,) = read_results(tmp_path)
    assert [g["title"] for g in written["groups"]] == ["first", "second"]
    assert (written["name"], written["commit"]) == ("cpu-x", "c")


def test_a_group_that_fails_fails_for_each_entry_and_is_not_written(tmp_path: Path) -> None:
    recorder = Recorder(2, {"cpu-x": ["a, b"]})
    for _ in range(2):
        with pytest.raises(AssertionError, match="they differ"):
            recorder.measure("cpu-x", group(facts=disagree))
    recorder.write(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "cores", lambda: 4)
    assert record.load_warning(2.0) is None
    assert "2.1 on 4 cores" in str(record.load_warning(2.1))
    assert record.about(2.1, 5)["machine"]["busy"] is True


def test_no_name_or_path_of_the_machine_is_recorded() -> None:
    import platform

    text = json.dumps(record.about(0.0, 5))
    for secret in (str(ROOT), str(Path.home()), platform.node()):
        assert secret not in text


# The page
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


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    groups = [group(f"case {i}, both", precision={"fused": "bf16"}) for i in range(3)]
    groups += [group(f"grown {i}", section="growth", axis=("batch", i)) for i in (10, 20)]
    groups += [group("mixed", section="mixed", precision={"fused": "tf32"}, facts=disagree)]
    records = [measure(g, "cpu", rounds=3, strict=False).record for g in groups]
    about = record.about(9.0, 3) | {"checks": {"memcheck": {"passed": False}}}
    return json.loads(json.dumps([{"name": "cpu-x", **about, "groups": records}]))


def test_the_page_shows_each_group_check_precision_and_reason(results: Any) -> None:
    text = page(results, picture=True)
    for found in results[0]["groups"]:
        fused = found["entries"][1]
        assert f"{fused['ratio']:.2f}" in text
        assert duration(fused["microseconds"]["median"]) in text
    assert "| memcheck | FAILED |" in text
    assert "Not run: absent: not here" in text
    assert "Failed: results: AssertionError: they differ" in text
    assert "Precision: float32." in text and "| precision |" in text
    assert "reference: float32; fused: bf16" in text
    assert "The machine was busy" in text
    assert "no results files" in page([], picture=False)


def test_report_writes_page_and_picture(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write_json(tmp_path / "results" / "cpu-x.json", results[0])
    folders = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", ["report", *folders])
    main()
    assert "case 1" in (tmp_path / "docs" / "benchmarks.md").read_text()
    picture = tmp_path / "docs" / "images" / "benchmarks.png"
    assert picture.stat().st_size > 1000
    assert draw([{"name": "cpu-x", "groups": []}], tmp_path / "nothing.png") is False
    assert not (tmp_path / "nothing.png").exists()


def test_the_documented_page_shows_the_committed_results() -> None:
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    found = read_results(ROOT / "benchmarks" / "results")
    picture = (ROOT / "docs" / "images" / "benchmarks.png").exists()
    assert documented == page(found, picture), "run `make bench-report`"
