"""Timing, recording and reporting; no test here says how long anything takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, precision
from benchmarks.group import Group, Skipped, measure
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


def failing(entry: str) -> Group:
    def build() -> dict[str, Any]:
        return group().build() | {entry: lambda: 1 / 0}

    return group(build=build)


def test_an_entry_that_fails_costs_no_other_where_that_is_wanted() -> None:
    with pytest.raises(ZeroDivisionError):
        measure(failing("copy"), "cpu", rounds=2)
    found = measure(failing("copy"), "cpu", rounds=2, strict=False)
    assert found.failed == {"copy": "ZeroDivisionError: division by zero"}
    assert found.record["failed"] == found.failed
    assert [entry["name"] for entry in found.record["entries"]] == ["reference", "fused"]
    with pytest.raises(ZeroDivisionError):  # nothing is left to compare
        measure(failing("fused"), "cpu", rounds=2, strict=False)


def test_results_that_disagree_are_said_beside_their_times() -> None:
    def disagree(results: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("they differ")

    record = measure(group(facts=disagree), "cpu", rounds=2, strict=False).record
    assert record["failed"] == {"results": "AssertionError: they differ"}
    assert len(record["entries"]) == 3
    found = results()
    found[0]["groups"][0] |= record
    assert "Failed: results: AssertionError: they differ" in page(found, picture=False)


def test_each_entry_names_its_precision() -> None:
    record = measure(group(precision={"fused": "tf32"}), "cpu", rounds=2).record
    named = {entry["name"]: entry["precision"] for entry in record["entries"]}
    assert named == {"reference": "float32", "fused": "tf32", "copy": "float32"}
    found = results()
    assert "Precision: float32." in page(found, picture=False)
    found[0]["groups"] = [record]
    assert "| precision |" in page(found, picture=False)


def test_a_group_of_fewer_entries_builds_those() -> None:
    fewer = group().only(["reference", "fused"], title="fewer")
    assert set(fewer.build()) == {"reference", "fused"}
    assert (fewer.title, fewer.floor) == ("fewer", ())


def test_tf32_is_for_its_entries_alone() -> None:
    precision.use_exact_float32()
    seen = []
    run = precision.in_tf32(
        lambda: seen.append(precision.in_use()) or (lambda: seen.append(precision.in_use()))
    )
    exact = {"convolutions": "float32", "matrix products": "float32"}
    assert precision.in_use() == exact
    run()
    assert precision.in_use() == exact
    assert seen == [dict.fromkeys(exact, "tf32")] * 2
