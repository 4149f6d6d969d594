"""Tables as text, as Markdown and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastinterp.evaluation import accuracy_table, markdown_table, text_table, write_rows
from fastinterp.evaluation.tables import format_eps

ROWS = [
    {"eps": 0.0, "steps": 1, "accuracy": 0.99, "n": 200},
    {"eps": 8 / 255, "steps": 1, "accuracy": 0.5, "n": 200},
    {"eps": 0.0, "steps": 100, "accuracy": 0.99, "n": 200},
]


def test_a_line_an_eps_and_a_column_a_number_of_steps() -> None:
    header, body = accuracy_table(ROWS)
    assert header == ["eps", "1 steps", "100 steps"]
    assert body == [["0", "0.990", "0.990"], ["8/255", "0.500", "-"]]


def test_text_tables_are_aligned() -> None:
    lines = text_table(["name", "value"], [["a", 1], ["longer", 0.25]]).splitlines()
    assert lines == ["name    value", "------  -----", "a           1", "longer  0.250"]


def test_markdown_tables_say_which_columns_are_numbers() -> None:
    lines = markdown_table(["name", "n"], [["a", 1], ["b", 22]]).splitlines()
    assert lines == ["| name |   n |", "| ---- | --: |", "| a    |   1 |", "| b    |  22 |"]
    cells = [["0.5 / -0.1"], ["-0.5 / -"], ["- / 0.2"], ["- / -"], ["-"], [""]]
    assert markdown_table(["eps"], cells).splitlines()[1] == "| ---------: |"
    assert markdown_table(["seen"], [["-"], ["- a"]]).splitlines()[1] == "| ---- |"


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(["a", "b"], []).splitlines()[0] == "a  b"


@pytest.mark.parametrize(
    ("eps", "text"),
    [(0.0, "0"), (0.3, "0.3"), (0.05, "0.05"), (8 / 255, "8/255"), (1.0, "1"), (0.1234, "0.1234")],
)
def test_eps_reads_as_people_write_it(eps: float, text: str) -> None:
    assert format_eps(eps) == text


def test_json_holds_what_it_is_about_and_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_rows(path, ROWS, model="m", protocol="paper")
    assert json.loads(path.read_text()) == {"model": "m", "protocol": "paper", "rows": ROWS}
    assert [file.name for file in path.parent.iterdir()] == ["rows.json"]
