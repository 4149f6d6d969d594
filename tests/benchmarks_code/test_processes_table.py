"""The table of docs/scaling.md is written between its marks; the rest of the page stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import processes


def test_the_table_is_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "scaling.md"
    before, _, rest = processes.PAGE.read_text(encoding="utf-8").partition(processes.BEGIN)
    after = rest.partition(processes.END)[2]
    page.write_text(processes.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    one = {"50": 0.1, "200": 0.4, "exchange": 0.0, "parameters": 1000.0}
    two = one | {"50": 0.06, "200": 0.21, "exchange": 0.01}
    for _ in range(2):  # the second time, in place of the first table
        processes.write(processes.table({1: one, 2: two}, load=0.5), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(before + processes.BEGIN) and text.endswith(processes.END + after)
    written = text[len(before) : len(text) - len(after)]
    assert "| 2 | 60.0 | 210.0 | 10.0 | measured |" in written
    assert "| 4 | 40.0 | 115.0 | 15.0 | computed |" in written
    assert written.count("| processes |") == 1 and "load was 0.5." in written


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("words", encoding="utf-8")
    with pytest.raises(SystemExit, match="to write between"):
        processes.write("table", page)
    assert page.read_text(encoding="utf-8") == "words"
