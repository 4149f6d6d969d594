"""Measuring a table again, network by network, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import torch

from .. import data, models
from .._utils.errors import InputError
from .._utils.files import write_json
from ..data import ImageData
from .choose import kept
from .kinds import KINDS, Task
from .networks import Network, find_network, network_name, recipe_of, require_any
from .paper import Block, Table
from .versions import described, versions

Rows = list[dict[str, Any]]
Key = tuple[str, str, str]  # dataset, model, name of the row


@dataclass(frozen=True)
class _Place:
    """Where networks and data come from."""

    networks: Path
    data_dir: Path | None
    device: torch.device


def needed(table: Table, only: Sequence[str] = ()) -> list[Network]:
    """The networks that a table, or what `only` keeps of it, is measured with.

    Raises:
        InputError: `only` keeps nothing.
    """
    return list(dict.fromkeys(_network(block, name) for block, name in _wanted(table, only)))


def _network(block: Block, name: str) -> Network:
    return Network(block.dataset, block.model, block.method or name)


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
        n: images; by default the paper's 200, for "isa" 100 or what the block says. Of fewer, no
            cell is held against the paper's.
        device: where to measure.
        out: JSON file, written after each network. What it already holds for the same table, n and
            network is taken from there, whatever version measured it; `measured_otherwise` tells.

    Returns:
        A row a cell: dataset, model, method, network, recipe (None where its file does not say),
        what sets the column apart (such as eps and steps), paper, ours (None where there is no
        network or no data), difference, tolerance, within (None where there is nothing to compare),
        not_judged ("recipe": the network is of another than the paper's, "images": too few, None),
        n and versions; for AAI n_unchanged; for ISA, whose figure is NDS, interpreter, nds, nsl,
        for l2 both of the squared discrepancy too, whether the paper's figure is of that (squared),
        paper_nsl and n_counted, the images that count.

    Raises:
        InputError: a folder or data set is not there, the folder holds none of the networks, or
            `only` keeps nothing.
    """
    place = _Place(
        Path(networks), None if data_dir is None else Path(data_dir), torch.device(device)
    )
    wanted = _wanted(table, only)
    require_any(place.networks, [_network(block, row) for block, row in wanted])
    known = _known(out, table)
    rows: Rows = []
    loaded: dict[str, ImageData] = {}
    for block, row in wanted:
        key = (block.dataset, block.model, row)
        path = find_network(place.networks, _network(block, row))
        count = n or block.n or KINDS[table.kind].n
        if not _answers(known.get(key), path, count):
            known[key] = list(_measure_row(table, block, row, path, count, place, loaded))
            _write(out, table, known)
        rows += known[key]
    return rows


def _answers(rows: Rows | None, path: Path | None, n: int) -> bool:
    """Whether rows of an earlier run are what this one would measure."""
    name = None if path is None else network_name(path)
    return bool(rows) and all(row["network"] == name and row["n"] == n for row in rows or [])


def _wanted(table: Table, only: Sequence[str]) -> list[tuple[Block, str]]:
    """The rows that `only` keeps.

    Raises:
        InputError: there is none.
    """
    rows = [(block, name) for block in table.blocks for name in block.rows]
    keep = kept([(block.dataset, block.model, name) for block, name in rows], only)
    if not any(keep):
        raise InputError(
            f"{table.name} has nothing to do with {' '.join(only)}; it is about {table.needs}."
        )
    return list(compress(rows, keep))


def _measure_row(
    table: Table,
    block: Block,
    name: str,
    path: Path | None,
    n: int,
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
        found = kind.measure(Task(table, block, name, model, loaded[block.dataset], n))
    recipe = None if path is None else recipe_of(path)
    not_judged = None
    if recipe not in (None, _network(block, name).recipe):
        not_judged = "recipe"
    elif n < (block.n or kind.n):
        not_judged = "images"
    shared = {
        "dataset": block.dataset,
        "model": block.model,
        "method": block.method or name,
        **({"interpreter": name} if block.method else {}),
        "network": None if path is None else network_name(path),
        "recipe": recipe,
    }
    printed_nsl = block.nsl.get(name, (None,) * len(block.columns))
    for column, paper, nsl, cell in zip(
        block.columns, block.rows[name], printed_nsl, found, strict=True
    ):
        if paper != paper:
            continue
        ours = cell["ours"]
        enough = ours is not None and ours == ours and cell.get("enough", True)
        difference = ours - paper if enough else None
        tolerance = kind.tolerance(name, paper, n) if not_judged is None else None
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
            "not_judged": not_judged,
            "n": n,
            "versions": versions(place.device),
            **{key: value for key, value in cell.items() if key not in ("ours", "enough")},
        }


def _known(out: str | Path | None, table: Table) -> dict[Key, Rows]:
    """Rows of an earlier run of the same table, by network."""
    if out is None or not Path(out).is_file():
        return {}
    try:
        found = json.loads(Path(out).read_text(encoding="utf-8"))
        if found["table"] != table.name:
            raise KeyError("another table")
        known: dict[Key, Rows] = {}
        for row in found["rows"]:
            name = row.get("interpreter", row["method"])
            known.setdefault((row["dataset"], row["model"], name), []).append(row)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out} holds something else than {table.name}; name another file with --out, or "
            "remove it."
        ) from error
    return known


def _write(out: str | Path | None, table: Table, known: dict[Key, Rows]) -> None:
    """Everything measured so far, in the table's order."""
    if out is None:
        return
    order = [(b.dataset, b.model, name) for b in table.blocks for name in b.rows]
    rows = [row for key in order for row in known.get(key, [])]
    about = {"table": table.name, "title": table.title, "note": table.note}
    write_json(out, {**about, "rows": rows})


def measured_otherwise(rows: Rows, device: str | torch.device) -> str:
    """What to say of rows that other code than the present one measured; "" if there are none."""
    here = versions(torch.device(device))
    others = [row.get("versions") for row in rows if row["network"] and row.get("versions") != here]
    if not others:
        return ""
    kinds = dict.fromkeys(described(each) for each in others)
    return (
        f"{len(others)} cells were taken from the file, where another run left them "
        f"({'; '.join(kinds)}; this is {described(here)}); remove the file to measure them anew."
    )
