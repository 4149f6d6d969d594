"""The paper's figures and ours, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from .._utils.files import atomic_path
from ..evaluation.tables import Cell, format_eps, markdown_table
from .paper import Table

Part = tuple[str, list[str], list[list[Cell]]]  # title, header, body


Row = dict[str, Any]
Column = tuple[Any, ...]  # values of COLUMN_FIELDS
FEW = 8  # cells that are named one by one
COLUMN_FIELDS = ("attack", "norm", "classes", "eps", "steps")


def paper_and_ours(rows: Sequence[Row]) -> Iterator[Part]:
    """Rows of `reproduce` -> a table for each data set and architecture.

    A cell shows the paper's figure and ours (of ISA: NDS/NSL); `*` marks one outside the tolerance,
    `-` stands where there was nothing to measure or compare.
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


def _name(row: Row) -> str:
    """What the line of a cell is called."""
    return str(row.get("interpreter", row["method"]))


def _column(row: Row) -> Column:
    return tuple(row.get(name) for name in COLUMN_FIELDS)


def _heads(columns: Sequence[Column]) -> list[str]:
    """What sets the columns apart; of a single column, everything."""
    used = [i for i in range(len(COLUMN_FIELDS)) if columns[0][i] is not None]
    varying = [i for i in used if len({column[i] for column in columns}) > 1]
    return [", ".join(_word(i, column[i]) for i in varying or used) for column in columns]


def _word(field: int, value: Any) -> str:
    name = COLUMN_FIELDS[field]
    if name == "eps":
        return f"eps {format_eps(value)}"
    return f"{value} steps" if name == "steps" else str(value)


def _cell(row: Row) -> str:
    mark = "*" if row["within"] is False else ""
    paper, ours = _figure(row["paper"]), _figure(row["ours"])
    if "paper_nsl" in row:
        nsl = row.get("nsl_squared" if row.get("squared") else "nsl")
        paper, mark = f"{paper}/{_figure(row['paper_nsl'])}", f"{mark}/{_figure(nsl)}"
    return f"{paper} / -" if ours == "-" else f"{paper} / {ours}{mark}"


def _figure(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def summary(rows: Sequence[Row]) -> str:
    """What to make of the rows, in a few sentences: how many cells agree with the paper, and of
    what is random whether the order is kept (of ISA: which discrepancy withstands it)."""
    judged = [row for row in rows if row["within"] is not None]
    agree = sum(row["within"] for row in judged)
    missing = len({(r["dataset"], r["model"], r["method"]) for r in rows if r["network"] is None})
    line = "No cell was held against the paper's"
    if judged:
        tolerance = tolerance_of(judged[0])
        line = f"{agree} of {len(judged)} cells agree within the tolerance, {tolerance}"
    line = f"{line}; {missing} networks were not there." if missing else f"{line}."
    about = (_outside(judged), _about_unjudged(rows), _about_order(rows), _about_isa(rows))
    return " ".join(filter(None, (line, *about)))


def tolerance_of(row: Row) -> str:
    """How far the figure of a judged cell may lie from the paper's, in words."""
    if "interpreter" in row:
        return "15% of the paper's NDS"
    random = "n_unchanged" in row or "attack" in row
    return f"{row['tolerance']:g}" + ("" if random else f" (one image of {row['n']})")


def _outside(judged: Sequence[Row]) -> str:
    """Which cells disagree, where they are few enough to name."""
    cells = [_place(row) for row in judged if not row["within"]]
    return f"Outside it: {'; '.join(cells)}." if 0 < len(cells) <= FEW else ""


def _place(row: Row) -> str:
    words = [_word(i, each) for i, each in enumerate(_column(row)) if each is not None]
    return " ".join([row["dataset"], row["model"], _name(row), *words])


def _about_unjudged(rows: Sequence[Row]) -> str:
    """Why some cells are not held against the paper's."""
    few = [row for row in rows if _not_judged(row) == "images" and row["network"]]
    other = [row["recipe"] for row in rows if _not_judged(row) == "recipe"]
    sentences = []
    if few:
        sentences.append(
            f"{len(few)} cells are not judged: {few[0]['n']} images are fewer than the paper's."
        )
    if other:
        sentences.append(
            f"{len(other)} cells are not judged: their networks were trained by other recipes than "
            f"the paper's ({', '.join(dict.fromkeys(other))})."
        )
    return " ".join(sentences)


def order_kept(rows: Sequence[Row]) -> tuple[int, int]:
    """How many pairs of methods are ordered as the paper prints them.

    Args:
        rows: of `reproduce`. Pairs are within a column of a data set and architecture; those count
            whose printed figures differ by more than the tolerance, and which were both measured
            well enough to be judged.

    Returns:
        Pairs whose figures of ours differ the same way, and all pairs.
    """
    columns: dict[Column, list[Row]] = {}
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


def _not_judged(row: Row) -> str | None:
    """Why a cell is not judged. Rows of earlier versions do not say, and knew one reason alone."""
    if "not_judged" in row or "interpreter" in row:
        return row.get("not_judged")
    return "recipe" if row.get("recipe") and row["tolerance"] is None else None


def _about_order(rows: Sequence[Row]) -> str:
    """Of tables whose attacks are random: whether the methods come in the printed order."""
    same, pairs = order_kept(rows)
    if not pairs or not ("attack" in rows[0] or "n_unchanged" in rows[0]):
        return ""
    return (
        f"The order of methods is kept in {same} of {pairs} pairs of networks whose printed "
        "figures differ by more than the tolerance."
    )


def two_class_withstands(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], bool]:
    """Whether 2-class has the largest NDS and the smallest NSL, as the paper finds.

    Args:
        rows: of `reproduce`, of a table on ISA.

    Returns:
        (dataset, model, interpreter, norm) -> the verdict, where all three sets were measured.
    """
    found: dict[tuple[str, str, str, str], dict[str, Row]] = {}
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


def _about_isa(rows: Sequence[Row]) -> str:
    if "interpreter" not in rows[0]:
        return ""
    verdicts = two_class_withstands(rows)
    fails = "; ".join(" ".join(key) for key, holds in verdicts.items() if not holds)
    line = (
        f"2-class has the largest NDS and the smallest NSL in {sum(verdicts.values())} of "
        f"{len(verdicts)} comparisons{f' (not in {fails})' if fails else ''}."
    )
    far = [
        f"{_place(row)}, {_figure(row['paper'])} and here {_figure(row['ours'])}"
        for row in rows
        if row["within"] is None
        and _not_judged(row) is None
        and row.get("difference") is not None
        and abs(row["difference"]) > 0.15 * row["paper"]
    ]
    return (
        f"{line} The NDS of CAM alone is held against the paper's: how many images and which radii "
        "stand behind it is not known. "
        + (f"Of the others these are further away than 15%: {'; '.join(far)}." if far else "")
    ).strip()


def write_markdown(path: str | Path, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """The same as a Markdown page, atomically."""
    parts = [f"{title}\n\n{markdown_table(header, body)}"
             for title, header, body in paper_and_ours(rows)]  # fmt: skip
    notes = [table.note] if table.note else []
    text = "\n\n".join([f"# {table.name}: {table.title}", *parts, summary(rows), *notes])
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
