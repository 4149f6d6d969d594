"""The table of maps under the strongest attacks: its cells, and runs that continue."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastinterp import data, models

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "map_tables.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("map_tables", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method: str, eps: float, **more: Any) -> dict[str, Any]:
    return {"model": "small", "method": method, "network": f"{method}.pkl", "eps": eps, **more}


def test_cells(script: ModuleType) -> None:
    rows = [row("int", 0.1, kendall_tau=0.5), row("adv", 0.1, kendall_tau=-0.25)]
    rows.append(row("adv", 0.2, kendall_tau=None))
    paper = [row("int", 0.1, ours=0.9), row("int", 0.2, ours=0.8), row("adv", 0.1, ours=None)]
    written = script.table(rows, paper)
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in written.splitlines()[4:]]
    assert cells[0] == ["method", "eps 0.1", "eps 0.2"]
    assert cells[2:] == [["int", "0.900 / 0.500", "0.800 / -"], ["adv", "- / -0.250", "- / -"]]


def test_a_run_continues(script: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(script, "STEPS", 1)
    monkeypatch.setattr(script, "paper_rows", lambda: [row("a", 0.05), row("b", 0.0)])
    digits = data.load("digits").subset(range(4))
    monkeypatch.setattr(script.data, "load", lambda *_: digits)
    opened: list[str] = []
    monkeypatch.setattr(
        script.models, "load", lambda path: opened.append(path.name) or models.small(seed=0)
    )
    out = tmp_path / "rows.json"
    rows = script.measure_all(tmp_path, "", out)
    assert opened == ["a.pkl", "b.pkl"] and len(rows) == 2
    assert rows[1]["kendall_tau"] == pytest.approx(1.0) and rows[0]["n"] == 4
    assert json.loads(out.read_text())["rows"] == rows
    assert script.measure_all(tmp_path, "", out) == rows and len(opened) == 2
