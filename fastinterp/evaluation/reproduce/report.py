"""The paper's figures and ours, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...files import atomic_path
from ..tables import Cell, format_eps, markdown_table
from .paper import Table

Part = tuple[str, list[str], list[list[Cell]]]  # title, header, body


def paper_and_ours(rows: Sequence[dict[str, Any]]) -> Iterator[Part]:
    """Rows of `reproduce` -> a table for each data set and architecture.

    A cell shows the paper's figure and ours; `*` marks one outside the tolerance, `-` stands where
    there was nothing to measure or compare.
    """
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        part = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        columns = list(dict.fromkeys((row["eps"], row["steps"]) for row in part))
        body: list[list[Cell]] = []
        for method in dict.fromkeys(row["method"] for row in part):
            cells = {(row["eps"], row["steps"]): row for row in part if row["method"] == method}
            body.append([method, *(_cell(cells[column]) for column in columns)])
        yield f"{dataset}, {model}: paper / ours", ["method", *_heads(columns)], body


def _heads(columns: Sequence[tuple[float, int]]) -> list[str]:
    if len({eps for eps, _ in columns}) == 1:
        return [f"{steps} steps" for _, steps in columns]
    return [f"eps {format_eps(eps)}" for eps, _ in columns]


def _cell(row: dict[str, Any]) -> str:
    ours = row["ours"]
    if ours is None or ours != ours:
        return f"{row['paper']:.3f} / -"
    mark = "*" if row["within"] is False else ""
    return f"{row['paper']:.3f} / {ours:.3f}{mark}"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """One line: how many cells agree with the paper."""
    judged = [row for row in rows if row["within"] is not None]
    agree = sum(row["within"] for row in judged)
    missing = len({(r["dataset"], r["model"], r["method"]) for r in rows if r["network"] is None})
    line = f"{agree} of {len(judged)} cells agree within the tolerance"
    return f"{line}; {missing} networks were not there." if missing else f"{line}."


def write_markdown(path: str | Path, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """The same as a Markdown page, atomically."""
    parts = [f"{title}\n\n{markdown_table(header, body)}"
             for title, header, body in paper_and_ours(rows)]  # fmt: skip
    notes = [f"Errata: {table.note}"] if table.note else []
    text = "\n\n".join([f"# {table.name}: {table.title}", *parts, summary(rows), *notes])
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
