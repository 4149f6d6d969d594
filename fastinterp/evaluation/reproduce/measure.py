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
from .kinds import KINDS, Task
from .networks import Network, find_network
from .paper import Block, Table

Rows = list[dict[str, Any]]
Key = tuple[str, str, str]  # dataset, model, name of the row


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
    n: int | None = None,
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
) -> Rows:
    """Measure a table of the paper with the networks at hand.

    Args:
        table: from `load_table`.
        networks: folder with released .pkl files, or with runs of `fastinterp train`.
        data_dir: folder that holds the data sets.
        only: data sets, architectures and methods (of "isa": interpreters) to keep, such as
            ["cifar10", "int"]; none: all.
        n: images; by default the paper's 200, for "isa" 100.
        device: where to measure.
        out: JSON file, written after each network. What it already holds for the same table, n and
            network is taken from there.

    Returns:
        A row a cell: dataset, model, method, network, what sets the column apart (such as eps and
        steps), paper, ours (None where there is no network or no data), difference, tolerance,
        within (None where there is nothing to compare) and n; for AAI n_unchanged; for ISA, whose
        figure is NDS, interpreter, nds, nsl, paper_nsl and n_counted, the images that count.

    Raises:
        InputError: a folder or data set is not there, or `only` keeps nothing.
    """
    n = KINDS[table.kind].n if n is None else n
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
    for block, row in wanted:
        key = (block.dataset, block.model, row)
        path = find_network(
            place.networks, Network(block.dataset, block.model, block.method or row)
        )
        name = None if path is None else path.name
        if key not in known or known[key][0]["network"] != name:
            known[key] = list(_measure_row(table, block, row, path, place, loaded))
            _write(out, table, n, known)
        rows += known[key]
    return rows


def _wanted(table: Table, only: Sequence[str]) -> list[tuple[Block, str]]:
    """The rows that `only` keeps: of each kind of word in it, a row must fit one."""
    rows = [(block, name) for block in table.blocks for name in block.rows]
    names = [(block.dataset, block.model, name) for block, name in rows]
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
    name: str,
    path: Path | None,
    place: _Place,
    loaded: dict[str, ImageData],
) -> Iterator[dict[str, Any]]:
    """The cells of one row of the table; those that the paper has."""
    kind = KINDS[table.kind]
    found: Sequence[dict[str, Any]] = [{"ours": None} for _ in block.columns]
    if path is not None:
        if block.dataset not in loaded:
            loaded[block.dataset] = data.load(block.dataset, place.data_dir, "test", place.device)
        model = models.load(path, map_location=place.device)
        found = kind.measure(Task(table, block, name, model, loaded[block.dataset], place.n))
    shared = {
        "dataset": block.dataset,
        "model": block.model,
        "method": block.method or name,
        **({"interpreter": name} if block.method else {}),
        "network": None if path is None else path.name,
    }
    printed_nsl = block.nsl.get(name, (None,) * len(block.columns))
    for column, paper, nsl, cell in zip(
        block.columns, block.rows[name], printed_nsl, found, strict=True
    ):
        if paper != paper:
            continue
        ours = cell["ours"]
        comparable = ours is not None and ours == ours and cell.get("enough", True)
        difference = ours - paper if comparable else None
        tolerance = kind.tolerance(name, paper, place.n)
        within = None
        if difference is not None and tolerance is not None:
            within = abs(difference) <= tolerance + 1e-9
        yield {
            **shared,
            **column,
            "paper": paper,
            **({} if nsl is None else {"paper_nsl": nsl}),
            "ours": ours,
            "difference": difference,
            "tolerance": tolerance,
            "within": within,
            "n": place.n,
            **{key: value for key, value in cell.items() if key not in ("ours", "enough")},
        }


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
            name = row.get("interpreter", row["method"])
            known.setdefault((row["dataset"], row["model"], name), []).append(row)
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
    order = [(b.dataset, b.model, name) for b in table.blocks for name in b.rows]
    rows = [row for key in order for row in known.get(key, [])]
    about = {"table": table.name, "title": table.title, "note": table.note, "n": n}
    write_json(out, {**about, "rows": rows})
