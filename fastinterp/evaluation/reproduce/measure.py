"""Measuring a table again, network by network, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import data, models
from ...data import ImageData
from ...errors import InputError
from ...files import write_json
from ..aai_scores import aai_sweep, paper_noise
from ..accuracy import sweep
from ..isa_scores import INTERPRETERS
from ..protocols import PAPER_N, paper_selection
from .networks import find_network
from .paper import Block, Table

Rows = list[dict[str, Any]]
Key = tuple[str, str, str]  # dataset, model, method


@dataclass(frozen=True)
class _Place:
    """Where networks and data come from."""

    networks: Path
    data_dir: Path | None
    device: torch.device
    n: int


def reproduce(
    table: Table,
    networks: str | Path,
    data_dir: str | Path | None,
    *,
    only: Sequence[str] = (),
    n: int = PAPER_N,
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
) -> Rows:
    """Measure a table of the paper with the networks at hand.

    Args:
        table: from `load_table`.
        networks: folder with released .pkl files, or with runs of `fastinterp train`.
        data_dir: folder that holds the data sets.
        only: data sets, architectures or methods to keep, such as ["cifar10", "int"]; none: all.
        n: images; the paper's 200 by default.
        device: where to measure.
        out: JSON file, written after each network. What it already holds for the same table, n and
            network is taken from there.

    Returns:
        A row a cell: dataset, model, method, eps, steps, paper, ours (None where there is no
        network or no data), difference, tolerance, within (None where there is nothing to compare),
        n and, for AAI, n_unchanged.

    Raises:
        InputError: a folder or data set is not there, or `only` keeps nothing.
    """
    place = _Place(
        Path(networks), None if data_dir is None else Path(data_dir), torch.device(device), n
    )
    wanted = _wanted(table, only)
    if not wanted:
        raise InputError(
            f"{table.name} has nothing to do with {' '.join(only)}; it is about {table.needs}."
        )
    known = _known(out, table, n)
    rows: Rows = []
    loaded: dict[str, ImageData] = {}
    for block, method in wanted:
        key = (block.dataset, block.model, method)
        path = find_network(place.networks, *key)
        name = None if path is None else path.name
        if key not in known or known[key][0]["network"] != name:
            known[key] = list(_measure_row(table, block, method, path, place, loaded))
            _write(out, table, n, known)
        rows += known[key]
    return rows


def _wanted(table: Table, only: Sequence[str]) -> list[tuple[Block, str]]:
    """The rows that `only` keeps: of each kind of word in it, a row must fit one."""
    rows = [(block, method) for block in table.blocks for method in block.rows]
    names = [(block.dataset, block.model, method) for block, method in rows]
    kinds = [set(kind) for kind in zip(*names, strict=True)]
    if not set(only) <= set.union(*kinds):
        return []
    wishes = [kind & set(only) or kind for kind in kinds]
    return [
        row
        for row, name in zip(rows, names, strict=True)
        if all(value in wish for value, wish in zip(name, wishes, strict=True))
    ]


def _measure_row(
    table: Table,
    block: Block,
    method: str,
    path: Path | None,
    place: _Place,
    loaded: dict[str, ImageData],
) -> Iterator[dict[str, Any]]:
    """The cells of one network."""
    found: Sequence[dict[str, Any]] = [{"ours": None} for _ in block.columns]
    if path is not None:
        if block.dataset not in loaded:
            loaded[block.dataset] = data.load(block.dataset, place.data_dir, "test", place.device)
        model = models.load(path, map_location=place.device)
        found = _KINDS[table.kind](table, block, model, loaded[block.dataset], place.n)
    for (eps, steps), paper, cell in zip(block.columns, block.rows[method], found, strict=True):
        tolerance = _tolerance(table.kind, place.n)
        ours = cell["ours"]
        comparable = ours is not None and ours == ours and cell.get("enough", True)
        difference = ours - paper if comparable else None
        yield {
            "dataset": block.dataset,
            "model": block.model,
            "method": method,
            "network": None if path is None else path.name,
            "eps": eps,
            "steps": steps,
            "paper": paper,
            "ours": ours,
            "difference": difference,
            "tolerance": tolerance,
            "within": None if difference is None else abs(difference) <= tolerance + 1e-9,
            "n": place.n,
            **{key: value for key, value in cell.items() if key not in ("ours", "enough")},
        }


def _accuracies(
    table: Table, block: Block, model: models.GapClassifier, images: ImageData, n: int
) -> list[dict[str, Any]]:
    chosen, _ = paper_selection(len(images), n, num_classes=images.num_classes)
    rows = sweep(
        model,
        images.float(chosen),
        images.labels[chosen],
        eps=list(dict.fromkeys(eps for eps, _ in block.columns)),
        steps=list(dict.fromkeys(steps for _, steps in block.columns)),
    )
    return [{"ours": row["accuracy"]} for row in rows]


def _taus(
    table: Table, block: Block, model: models.GapClassifier, images: ImageData, n: int
) -> list[dict[str, Any]]:
    chosen, _ = paper_selection(len(images), n, num_classes=images.num_classes)
    shape = images.images.shape[1:]
    rows = aai_sweep(
        model,
        INTERPRETERS[table.interpreter](model),
        images.float(chosen),
        images.labels[chosen],
        eps=[eps for eps, _ in block.columns],
        noise=paper_noise(len(images), n, shape, num_classes=images.num_classes),
    )
    return [
        {
            "ours": row["kendall_tau"] if row["n_unchanged"] else None,
            "n_unchanged": row["n_unchanged"],
            "enough": row["n_unchanged"] >= ENOUGH,
        }
        for row in rows
    ]


# An average over fewer images says too little to be held against the paper's.
ENOUGH = 20
_KINDS = {"accuracy": _accuracies, "aai": _taus}


def _tolerance(kind: str, n: int) -> float:
    """One image for accuracies; for tau, the paper's random starts were not ours."""
    return 1 / n if kind == "accuracy" else 0.02


def _known(out: str | Path | None, table: Table, n: int) -> dict[Key, Rows]:
    """Rows of an earlier run of the same table, by network."""
    if out is None or not Path(out).is_file():
        return {}
    try:
        found = json.loads(Path(out).read_text(encoding="utf-8"))
        if (found["table"], found["n"]) != (table.name, n):
            raise KeyError("another table")
        known: dict[Key, Rows] = {}
        for row in found["rows"]:
            known.setdefault((row["dataset"], row["model"], row["method"]), []).append(row)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out} holds something else than {table.name} measured on {n} images; "
            "name another file with --out, or remove it."
        ) from error
    return known


def _write(out: str | Path | None, table: Table, n: int, known: dict[Key, Rows]) -> None:
    """Everything measured so far, in the table's order."""
    if out is None:
        return
    order = [(b.dataset, b.model, method) for b in table.blocks for method in b.rows]
    rows = [row for key in order for row in known.get(key, [])]
    about = {"table": table.name, "title": table.title, "note": table.note, "n": n}
    write_json(out, {**about, "rows": rows})
