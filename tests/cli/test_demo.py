"""The demo, cut down to seconds: what it writes, and that it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastinterp._utils.errors import InputError
from fastinterp.cli import demo

TINY = {"epochs": 1, "train_images": 200, "steps": 1, "eps_schedule": "0,2"}


def test_the_demo_writes_metrics_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STEPS", 2)
    monkeypatch.setattr(demo, "RADII", (0.0, 0.1))
    metrics = demo.run_demo(tmp_path, overrides=TINY, n=20, pictured=1)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert [one["method"] for one in metrics["methods"]] == ["normal", "int"]
    assert (metrics["eps"], metrics["steps"], metrics["n"]) == (0.1, 2, 20)
    assert metrics["seconds"] > 0
    for one in metrics["methods"]:
        assert 0 <= one["robust_accuracy"] <= one["clean_accuracy"] <= 1
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert str(tmp_path / "metrics.json") in said
    assert str(tmp_path / "demo.png") in said
    assert "\nnormal " in said

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/history.json")}
    again = demo.run_demo(tmp_path, overrides=TINY, n=20, pictured=1)
    drop = ("seconds",)
    assert {k: v for k, v in again.items() if k not in drop} == {
        k: v for k, v in metrics.items() if k not in drop
    }
    assert trained == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/history.json")}

    with pytest.raises(InputError, match="holds a run"):
        demo.run_demo(tmp_path, overrides={**TINY, "steps": 2}, n=20, pictured=1)


def test_the_demo_compares_the_same_recipe_but_for_the_method() -> None:
    from dataclasses import asdict

    from fastinterp.training import load_recipe

    normal, robust = (asdict(load_recipe(name)) for name in demo.RECIPES.values())
    differing = {key for key in normal if normal[key] != robust[key]}
    assert differing == {"name", "description", "method"}
    assert demo.EPS in demo.RADII


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.touch()
    with pytest.raises(InputError, match="names a file"):
        demo.run_demo(file, overrides=TINY, n=20)
