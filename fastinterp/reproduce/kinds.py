"""The kinds of table: how one network is measured, and what is held against the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..data import ImageData
from ..evaluation.aai_scores import aai_sweep, paper_noise
from ..evaluation.accuracy import sweep
from ..evaluation.corruptions import corruption_sweep
from ..evaluation.isa_scores import isa_row
from ..evaluation.protocols import PAPER_N, paper_selection
from ..interpreters.registry import interpreter_named
from ..models.gap import GapClassifier
from .paper import Block, Table

Cells = list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One row of a table, to be measured on n images.

    Attributes:
        table, block, name: which row.
        model, images: its network and test set.
        n: images.
    """

    table: Table
    block: Block
    name: str
    model: GapClassifier
    images: ImageData
    n: int


@dataclass(frozen=True)
class Kind:
    """How the tables of one kind are measured.

    Attributes:
        measure: task -> for each column "ours", what else to keep, and perhaps "enough": False
            where the figure is not to be held against the paper's.
        tolerance: (row's name, paper's figure, n) -> how far ours may lie from the paper's;
            None: it is not judged.
        n: images by default.
    """

    measure: Callable[[Task], Cells]
    tolerance: Callable[[str, float, int], float | None]
    n: int = PAPER_N


def _accuracies(task: Task) -> Cells:
    chosen, _ = paper_selection(len(task.images), task.n, num_classes=task.images.num_classes)
    columns = task.block.columns
    rows = sweep(
        task.model,
        task.images.float(chosen),
        task.images.labels[chosen],
        eps=list(dict.fromkeys(column["eps"] for column in columns)),
        steps=list(dict.fromkeys(column["steps"] for column in columns)),
    )
    return [{"ours": row["accuracy"]} for row in rows]


# An average over fewer images says too little to be held against the paper's.
ENOUGH = 20


def _taus(task: Task) -> Cells:
    images, classes = task.images, task.images.num_classes
    chosen, _ = paper_selection(len(images), task.n, num_classes=classes)
    rows = aai_sweep(
        task.model,
        interpreter_named(task.table.interpreter)(task.model),
        images.float(chosen),
        images.labels[chosen],
        eps=[column["eps"] for column in task.block.columns],
        hinge=0.0,
        keep="last",
        noise=paper_noise(len(images), task.n, images.images.shape[1:], num_classes=classes),
    )
    return [
        {
            "ours": row["kendall_tau"] if row["n_unchanged"] else None,
            "n_unchanged": row["n_unchanged"],
            "enough": row["n_unchanged"] >= ENOUGH,
        }
        for row in rows
    ]


def _under_corruption(task: Task) -> Cells:
    images, classes = task.images, task.images.num_classes
    chosen, offsets = paper_selection(len(images), task.n, num_classes=classes)
    labels = images.labels[chosen]
    cells: Cells = []
    for column in task.block.columns:
        (row,) = corruption_sweep(
            task.model,
            images.float(chosen),
            labels,
            (labels + offsets.to(labels)) % classes,
            attack=column["attack"],
            eps=[column["eps"]],
            steps=[column["steps"]],
        )
        cells.append({"ours": row["accuracy"], "targeted": row["targeted"]})
    return cells


def _scores(task: Task) -> Cells:
    """NDS is the cell's figure; NSL goes with it. Of l2, both also of the squared discrepancy."""
    cells: Cells = []
    for column, printed in zip(task.block.columns, task.block.rows[task.name], strict=True):
        if printed != printed:  # the paper has no such cell
            cells.append({})
            continue
        row = isa_row(
            task.model, task.images, task.name, column["norm"], column["classes"], n=task.n
        )
        known = row["n"] > 0
        figures = {name: row[name] if known else None for name in SCORES}  # type: ignore[literal-required]
        squared = is_squared(task.block, task.name, column)
        cells.append(
            {
                "ours": figures["nds_squared" if squared else "nds"],
                **figures,
                "squared": squared,
                "n_counted": row["n"],
                "enough": row["n"] >= ENOUGH,
            }
        )
    return cells


SCORES = ("nds", "nsl", "nds_squared", "nsl_squared")


def is_squared(block: Block, interpreter: str, column: Mapping[str, Any]) -> bool:
    """Whether the paper's cell is of the squared l2 discrepancy; see `ISARow`."""
    one = (column["norm"], column["classes"]) == ("l2", "1-class")
    return one and interpreter in block.squared


KINDS = {
    # One image: the same network, images and attack give the same verdicts, but for rounding.
    "accuracy": Kind(_accuracies, lambda name, paper, n: 1 / n),
    # The paper's random starts were not ours.
    "aai": Kind(_taus, lambda name, paper, n: 0.02),
    # Nor were the random shapes.
    "corruption": Kind(_under_corruption, lambda name, paper, n: 0.06),
    # The paper does not say how many images and which radii it took.
    "isa": Kind(_scores, lambda name, paper, n: 0.15 * paper if name == "cam" else None, 100),
}
