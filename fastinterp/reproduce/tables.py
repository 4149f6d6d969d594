"""Measuring a table again, network by network, so that a stopped run continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._utils.errors import InputError
from .._utils.require import require_count
from ..evaluation.by_attack import Request, measure
from ..evaluation.protocols import PAPER_N
from .networks import Sources, network_and_recipe
from .paper import Block, PaperTable
from .results import ResultRow, Results, ResultsFile, versions

ENOUGH = 20  # an average over fewer images is not compared with the paper's


@dataclass(frozen=True)
class TableKind:
    """How the cells of one kind of table are measured and judged.

    Attributes:
        attack: of `evaluation.by_attack.measure`; "": each column names its own.
        ours: the entry of its rows that is compared with the paper's figure.
        kept: its other entries that are kept: their names there -> in the results.
        counted: the entry that says over how many images `ours` is a mean; "": over all.
        tolerance: (row's name, paper's figure, n) -> how far ours may lie from the paper's;
            None: the cell is not judged.
        n: images by default.
        batch_size: images attacked at a time.
    """

    attack: str
    ours: str
    kept: Mapping[str, str]
    counted: str
    tolerance: Callable[[str, float, int], float | None]
    n: int = PAPER_N
    batch_size: int = 100


_SCORES = {name: name for name in ("nds", "nsl", "nds_squared", "nsl_squared")}
KINDS = {
    # One image: the same network, images and attack give the same verdicts, up to rounding.
    "accuracy": TableKind("pgd", "accuracy", {}, "", lambda name, paper, n: 1 / n),
    # The paper's random starts were not ours.
    "aai": TableKind(
        "aai",
        "kendall_tau",
        {"n_unchanged": "n_unchanged"},
        "n_unchanged",
        lambda name, paper, n: 0.02,
        batch_size=40,
    ),
    # The paper's random shapes were not ours.
    "corruption": TableKind(
        "", "accuracy", {"targeted": "targeted"}, "", lambda name, paper, n: 0.06
    ),
    # The paper does not say how many images and which radii it took.
    "isa": TableKind(
        "isa",
        "nds",
        {**_SCORES, "n": "n_counted"},
        "n",
        lambda name, paper, n: 0.15 * paper if name == "cam" else None,
        n=100,
    ),
}


def reproduce_table(
    table: PaperTable,
    networks: str | Path,
    data_dir: str | Path | None,
    *,
    only: Sequence[str] = (),
    n: int | None = None,
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
) -> list[ResultRow]:
    """Measure a table of the paper with the networks of a folder.

    Args:
        table: from `load_table`.
        networks: folder with released .pkl files, or with runs of `fastinterp train`.
        data_dir: folder that holds the data sets.
        only: words that choose rows: data sets, architectures and methods (for "isa":
            interpreters), such as ["cifar10", "int"]; none: all.
        n: images; by default the paper's 200, for "isa" 100 or the block's own number. With fewer
            images no cell is compared with the paper's.
        device: where to measure.
        out: JSON file, written after each network. Rows that it holds of the same network and n
            are not measured again, whichever version measured them; see `measured_otherwise`.

    Returns:
        A row for each cell: dataset, model, method, network, recipe (None if the file does not say
        it), the column (such as eps and steps), paper, ours (None without a network or without
        images that count), difference, tolerance, within (None if the cell is not judged),
        not_judged (the reason: "recipe", another than the paper's; "images", too few; or None), n
        and versions. For "aai" also n_unchanged. For "isa", whose figure is NDS: interpreter,
        nds, nsl, nds_squared and nsl_squared (of the squared l2 discrepancy), squared (whether
        the paper's figure is of that), paper_nsl and n_counted, the images that count.

    Raises:
        InputError: a folder or data set is missing, the folder holds none of the networks, `out`
            holds something else, or `only` chooses nothing.
    """
    rows = table.chosen(only)
    if n is not None:
        require_count("n", n)
    sources = Sources(
        Path(networks), None if data_dir is None else Path(data_dir), torch.device(device)
    )
    _require_any(sources, table, only)
    file = ResultsFile(None if out is None else Path(out), "table", table.name)
    known: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in file.read().rows:
        name = row.get("interpreter", row["method"])
        known.setdefault((row["dataset"], row["model"], name), []).append(row)
    order = [(block.dataset, block.model, name) for block, name in table.chosen()]
    found: list[ResultRow] = []
    for block, name in rows:
        key = (block.dataset, block.model, name)
        about = network_and_recipe(sources.find(block.network(name)))
        wanted = (about["network"], n or block.n or KINDS[table.kind].n)
        if {(row.get("network"), row.get("n")) for row in known.get(key, [])} != {wanted}:
            known[key] = _measure_row(table, block, name, about, wanted[1], sources)
            written = [row for each in order for row in known.get(each, [])]
            file.write(Results(written), title=table.title, note=table.note)
        found += known[key]
    return found


def _require_any(sources: Sources, table: PaperTable, only: Sequence[str]) -> None:
    needed = table.needed(only)
    if all(sources.find(network) is None for network in needed):
        raise InputError(
            f"{sources.networks} holds none of the networks that {table.name} takes, neither as "
            f"released .pkl files nor as runs such as {needed[0]}/model.safetensors; name another "
            "folder, or train them with --train."
        )


def _measure_row(
    table: PaperTable,
    block: Block,
    name: str,
    about: ResultRow,
    n: int,
    sources: Sources,
) -> list[ResultRow]:
    """One row of the table: the cells for which the paper prints a figure."""
    kind, network = KINDS[table.kind], block.network(name)
    model = images = None
    if about["network"] is not None:
        model, images = sources.load(network), sources.images(block.dataset)
    not_judged = "images" if n < (block.n or kind.n) else None
    if about["recipe"] not in (None, network.recipe):
        not_judged = "recipe"
    shared = {
        "dataset": block.dataset,
        "model": block.model,
        "method": network.method,
        **({"interpreter": name} if block.method else {}),
        **about,
    }
    rows = []
    for i, (column, paper) in enumerate(zip(block.columns, block.rows[name], strict=True)):
        if paper != paper:
            continue
        ours: float | None = None
        more: ResultRow = {}
        enough = False
        if model is not None and images is not None:
            settings = _settings(table, name, column)
            attack = column.get("attack", kind.attack)
            request = Request(model, images, n, batch_size=kind.batch_size, **settings)
            (cell,) = measure(attack, request)
            ours, more, enough = _figures(kind, block, name, column, cell)
        difference = ours - paper if ours is not None and enough else None
        tolerance = kind.tolerance(name, paper, n) if not_judged is None else None
        within = None
        if difference is not None and tolerance is not None:
            within = abs(difference) <= tolerance + 1e-9
        rows.append(
            {
                **shared,
                **column,
                "paper": paper,
                **({"paper_nsl": block.nsl[name][i]} if name in block.nsl else {}),
                "ours": ours,
                "difference": difference,
                "tolerance": tolerance,
                "within": within,
                "not_judged": not_judged,
                "n": n,
                "versions": versions(sources.device),
                **more,
            }
        )
    return rows


def _settings(table: PaperTable, name: str, column: Mapping[str, Any]) -> dict[str, Any]:
    """A column as settings of a `Request`."""
    several = {key: [column[key]] for key in ("eps", "steps") if key in column}
    single = {key: column[key] for key in ("norm", "classes") if key in column}
    interpreter = name if table.kind == "isa" else table.interpreter or None
    return {**several, **single, "interpreter": interpreter}


def _figures(
    kind: TableKind, block: Block, name: str, column: Mapping[str, Any], cell: Mapping[str, Any]
) -> tuple[float | None, ResultRow, bool]:
    """Our figure, what else to keep of a cell, and whether it is a mean over enough images."""
    more = {ours: cell[theirs] for theirs, ours in kind.kept.items()}
    figure = kind.ours
    if kind.attack == "isa":
        more["squared"] = is_squared(block, name, column)
        figure = "nds_squared" if more["squared"] else "nds"
    return cell[figure], more, not kind.counted or cell[kind.counted] >= ENOUGH


def is_squared(block: Block, interpreter: str, column: Mapping[str, Any]) -> bool:
    """Whether the paper's cell is of the squared l2 discrepancy; see `ISARow`."""
    one = (column["norm"], column["classes"]) == ("l2", "1-class")
    return one and interpreter in block.squared
