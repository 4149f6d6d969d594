"""The paper's figures and ours, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from .._utils.files import atomic_path
from ..evaluation.tables import Cell, format_eps, markdown_table
from .paper import PaperTable
from .results import ResultRow

Column = tuple[Any, ...]  # values of COLUMN_KEYS
COLUMN_KEYS = ("attack", "norm", "classes", "eps", "steps")
FEW = 8  # cells outside the tolerance that are named one by one


def paper_and_ours(
    rows: Sequence[ResultRow],
) -> Iterator[tuple[str, list[str], list[list[Cell]]]]:
    """Rows of `reproduce_table` -> a table for each data set and architecture.

    A cell shows the paper's figure and ours (for ISA: NDS/NSL). `*` marks one outside the
    tolerance; `-` stands where nothing was measured or the paper has no figure.

    Yields:
        (title, header, body).
    """
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        part = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        columns = list(dict.fromkeys(_column(row) for row in part))
        body: list[list[Cell]] = []
        for name in dict.fromkeys(_name(row) for row in part):
            cells = {_column(row): _cell(row) for row in part if _name(row) == name}
            body.append([name, *(cells.get(column, "-") for column in columns)])
        first = "interpreter" if "interpreter" in part[0] else "method"
        yield f"{dataset}, {model}: paper / ours", [first, *_heads(columns)], body


def summary(rows: Sequence[ResultRow]) -> str:
    """What the rows say, in a few sentences.

    How many cells agree with the paper; for random attacks also whether the order of the methods
    is the paper's; for ISA, which discrepancy withstands it.
    """
    judged = [row for row in rows if row["within"] is not None]
    agree = sum(row["within"] for row in judged)
    missing = len({(r["dataset"], r["model"], r["method"]) for r in rows if r["network"] is None})
    line = "No cell was held against the paper's"
    if judged:
        line = f"{agree} of {len(judged)} cells agree within the tolerance, {_tolerance(judged[0])}"
    sentences = [f"{line}; {missing} networks were missing." if missing else f"{line}."]
    outside = [_place(row) for row in judged if not row["within"]]
    if 0 < len(outside) <= FEW:
        sentences.append(f"Outside it: {'; '.join(outside)}.")
    sentences += _on_unjudged(rows)
    if "attack" in rows[0] or "n_unchanged" in rows[0]:
        same, pairs = order_kept(rows)
        if pairs:
            sentences.append(
                f"The order of methods is kept in {same} of {pairs} pairs of networks whose "
                "printed figures differ by more than the tolerance."
            )
    if "interpreter" in rows[0]:
        sentences += _on_isa(rows)
    return " ".join(sentences)


def order_kept(rows: Sequence[ResultRow]) -> tuple[int, int]:
    """How many pairs of methods are ordered as the paper prints them.

    Args:
        rows: of `reproduce_table`. Pairs are two judged cells of the same data set, architecture
            and column. A pair counts if its printed figures differ by more than the tolerance.

    Returns:
        The pairs whose figures of ours differ the same way, and all pairs.
    """
    columns: dict[Column, list[ResultRow]] = {}
    for row in rows:
        if row["within"] is not None:
            key = (row["dataset"], row["model"], *_column(row))
            columns.setdefault(key, []).append(row)
    pairs = [
        (a, b)
        for column in columns.values()
        for a, b in combinations(column, 2)
        if abs(a["paper"] - b["paper"]) > a["tolerance"] + 1e-9
    ]
    same = sum((a["paper"] - b["paper"]) * (a["ours"] - b["ours"]) > 0 for a, b in pairs)
    return same, len(pairs)


def two_class_withstands(rows: Sequence[ResultRow]) -> dict[tuple[str, str, str, str], bool]:
    """Whether 2-class has the largest NDS and the smallest NSL, as the paper finds.

    Args:
        rows: of `reproduce_table`, of a table on ISA.

    Returns:
        (dataset, model, interpreter, norm) -> the verdict, where all three sets were measured.
    """
    found: dict[tuple[str, str, str, str], dict[str, ResultRow]] = {}
    for row in rows:
        if row.get("nds") is not None:
            key = (row["dataset"], row["model"], row["interpreter"], row["norm"])
            found.setdefault(key, {})[row["classes"]] = row
    verdicts = {}
    for key, cells in found.items():
        if len(cells) == 3:
            two = cells.pop("2-class")
            verdicts[key] = all(
                two["nds"] > other["nds"] and two["nsl"] < other["nsl"] for other in cells.values()
            )
    return verdicts


def write_markdown(path: str | Path, table: PaperTable, rows: Sequence[ResultRow]) -> None:
    """Write the tables of `paper_and_ours` and the summary as a Markdown page, atomically."""
    parts = [
        f"{title}\n\n{markdown_table(header, body)}" for title, header, body in paper_and_ours(rows)
    ]
    notes = [table.note] if table.note else []
    text = "\n\n".join([f"# {table.name}: {table.title}", *parts, summary(rows), *notes])
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _name(row: ResultRow) -> str:
    return str(row.get("interpreter", row["method"]))


def _column(row: ResultRow) -> Column:
    return tuple(row.get(key) for key in COLUMN_KEYS)


def _heads(columns: Sequence[Column]) -> list[str]:
    """For each column the values that differ between columns; all values if there is only one."""
    used = [i for i in range(len(COLUMN_KEYS)) if columns[0][i] is not None]
    varying = [i for i in used if len({column[i] for column in columns}) > 1]
    return [", ".join(_word(i, column[i]) for i in varying or used) for column in columns]


def _word(key: int, value: Any) -> str:
    name = COLUMN_KEYS[key]
    if name == "eps":
        return f"eps {format_eps(value)}"
    return f"{value} steps" if name == "steps" else str(value)


def _place(row: ResultRow) -> str:
    words = [_word(i, each) for i, each in enumerate(_column(row)) if each is not None]
    return " ".join([row["dataset"], row["model"], _name(row), *words])


def _cell(row: ResultRow) -> str:
    mark = "*" if row["within"] is False else ""
    paper, ours = _figure(row["paper"]), _figure(row["ours"])
    if "paper_nsl" in row:
        nsl = row.get("nsl_squared" if row.get("squared") else "nsl")
        paper, mark = f"{paper}/{_figure(row['paper_nsl'])}", f"{mark}/{_figure(nsl)}"
    return f"{paper} / -" if ours == "-" else f"{paper} / {ours}{mark}"


def _figure(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _tolerance(row: ResultRow) -> str:
    """How far the figure of a judged cell may lie from the paper's, in words."""
    if "interpreter" in row:
        return "15% of the paper's NDS"
    random = "n_unchanged" in row or "attack" in row
    return f"{row['tolerance']:g}" + ("" if random else f" (one image of {row['n']})")


def _not_judged(row: ResultRow) -> str | None:
    """Why a cell is not judged. Rows of 0.1 may lack the reason, which was the recipe."""
    if "not_judged" in row or "interpreter" in row:
        return row.get("not_judged")
    return "recipe" if row.get("recipe") and row["tolerance"] is None else None


def _on_unjudged(rows: Sequence[ResultRow]) -> Iterator[str]:
    few = [row for row in rows if _not_judged(row) == "images" and row["network"]]
    other = [row["recipe"] for row in rows if _not_judged(row) == "recipe"]
    if few:
        yield (f"{len(few)} cells are not judged: {few[0]['n']} images are fewer than the paper's.")
    if other:
        yield (
            f"{len(other)} cells are not judged: their networks were trained by other recipes than "
            f"the paper's ({', '.join(dict.fromkeys(other))})."
        )


def _on_isa(rows: Sequence[ResultRow]) -> Iterator[str]:
    verdicts = two_class_withstands(rows)
    fails = "; ".join(" ".join(key) for key, holds in verdicts.items() if not holds)
    yield (
        f"2-class has the largest NDS and the smallest NSL in {sum(verdicts.values())} of "
        f"{len(verdicts)} comparisons{f' (not in {fails})' if fails else ''}."
    )
    yield (
        "Only the NDS of CAM is held against the paper's, which does not say how many images and "
        "which radii it took."
    )
    far = [
        f"{_place(row)}, {_figure(row['paper'])} and here {_figure(row['ours'])}"
        for row in rows
        if row["within"] is None
        and _not_judged(row) is None
        and row.get("difference") is not None
        and abs(row["difference"]) > 0.15 * row["paper"]
    ]
    if far:
        yield f"Of the others these differ by more than 15%: {'; '.join(far)}."
