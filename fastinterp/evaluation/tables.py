"""Tables of results: for the terminal, for Markdown, and as JSON for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._utils.files import write_json

Cell = str | int | float
MARK = "(!)"


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns aligned for a terminal: text to the left, numbers to the right."""
    body = [[format_cell(cell) for cell in row] for row in rows]
    widths = _widths([list(header), *body])
    right = _numeric(rows, len(header))
    lines = [list(header), ["-" * width for width in widths], *body]
    return "\n".join(_line(line, widths, right).rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The same as a Markdown table."""
    body = [[format_cell(cell) for cell in row] for row in rows]
    widths = [max(width, 3) for width in _widths([list(header), *body])]
    right = _numeric(rows, len(header))
    rule = [
        "-" * (width - 1) + (":" if is_right else "-")
        for width, is_right in zip(widths, right, strict=True)
    ]
    lines = [list(header), rule, *body]
    return "\n".join(f"| {_line(line, widths, right, ' | ')} |" for line in lines)


def accuracy_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Cell]]]:
    """Rows of `sweep` -> header and body: a line for each eps, a column for each number of steps.

    Of a protocol with several attacks, a column shows the accuracy after each attack in turn.

    The order is that of the rows. Marked figures are those that `footnotes` explains.
    """
    if any("by_attack" in row for row in rows):
        return _attacks_table(rows)
    radii = list(dict.fromkeys(row["eps"] for row in rows))
    counts = list(dict.fromkeys(row["steps"] for row in rows))
    found = {
        (row["eps"], row["steps"]): format_accuracy(row["accuracy"]) + mark(row) for row in rows
    }
    header = ["eps", *(f"{count} steps" for count in counts)]
    body: list[list[Cell]] = [
        [format_eps(radius), *(found.get((radius, count), "-") for count in counts)]
        for radius in radii
    ]
    return header, body


def _attacks_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Cell]]]:
    """A line for each row, with the accuracy after each attack of an ensemble."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("by_attack", ())))
    body: list[list[Cell]] = []
    for row in rows:
        after = row.get("by_attack", {})
        line = [format_accuracy(after[name]) if name in after else "-" for name in names]
        accuracy = format_accuracy(row["accuracy"]) + mark(row)
        body.append([format_eps(row["eps"]), row["steps"], *line, accuracy])
    return ["eps", "steps", *names, "accuracy"], body


SHORT = "*"
UNRELIABLE = "!"


def mark(row: Mapping[str, Any]) -> str:
    """The marks of a row, which `footnotes` explains."""
    marks = [SHORT] * bool(row.get("short_of_eps"))
    marks += [UNRELIABLE] * bool(row.get("potentially_unreliable"))
    return "".join(f" {each}" for each in marks)


def footnotes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason why figures of these rows are marked."""
    lines = []
    if any(row.get("short_of_eps") for row in rows):
        lines.append(
            f"{SHORT} The attack's steps together are shorter than eps: it cannot reach the ball's "
            "boundary."
        )
    reasons = dict.fromkeys(row.get("potentially_unreliable") for row in rows)
    return lines + [f"{UNRELIABLE} potentially unreliable: {each}." for each in reasons if each]


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Write `{**about, "rows": rows}` as JSON, atomically."""
    write_json(path, {**about, "rows": [dict(row) for row in rows]})


def format_accuracy(value: float) -> str:
    """Three decimals, as the paper prints accuracies of 200 images."""
    return f"{value:.3f}"


def format_eps(value: float) -> str:
    """0.3 -> "0.3"; 8/255 -> "8/255", as people write it."""
    as_pixels = value * 255
    if (
        0 < value < 1
        and abs(as_pixels - round(as_pixels)) < 1e-6
        and f"{value:.3g}" != f"{value:.9g}"
    ):
        return f"{round(as_pixels)}/255"
    return f"{value:.6g}"


def format_cell(cell: Cell) -> str:
    """A float shows three decimals, or its power of ten if these are zeros; others show as they
    are."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0e}" if 0 < abs(cell) < 0.0005 else f"{cell:.3f}"


def _numeric(rows: Sequence[Sequence[Cell]], columns: int) -> list[bool]:
    """Which columns hold numbers or dashes alone, also those already formatted as text."""
    return [all(_is_number(row[i]) for row in rows) for i in range(columns)]


def _is_number(cell: Cell) -> bool:
    """Also "-0.5", "- / 0.3" and, where there is no figure, "-"."""
    if not isinstance(cell, str):
        return True
    figures = cell.lstrip("- /")
    return not figures or figures[0].isdigit()


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]


def _line(
    cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], gap: str = "  "
) -> str:
    return gap.join(
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
