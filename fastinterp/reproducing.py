"""`fastinterp reproduce`: train what is missing, measure, and show it beside the paper."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from . import training
from .errors import InputError
from .evaluation import reproduce as again
from .evaluation.protocols import PAPER_N
from .evaluation.reproduce import Entry, Figure, IterationTime, Network, Table
from .evaluation.tables import Cell, format_eps, text_table
from .train_missing import train_missing

Words = argparse.Namespace
OWN_NETWORKS = Path("runs") / "networks"


def run(args: Words, device: torch.device) -> None:
    """What `fastinterp reproduce` is asked for.

    Raises:
        InputError: something that is asked for does not fit, or is not there.
    """
    if args.list:
        print(text_table(("name", "takes", "what it shows", "what it needs"), _list()))
        return
    if args.name is None:
        raise InputError("reproduce needs a name; `fastinterp reproduce --list` shows them.")
    entry = again.load_entry(args.name)
    isa = isinstance(entry, Table) and entry.kind == "isa"
    if args.interpreters and not isa:
        raise InputError(f"--interpreters chooses rows of table1; {entry.name} has none to choose.")
    out = _out(entry, args.out)
    networks = _networks(entry, args, out)
    only = [*args.only, *args.interpreters]
    if args.train is not None and networks is not None:
        needed = entry.chosen(only) if isinstance(entry, Figure) else again.needed(entry, only)
        train_missing(needed, networks, args.data_dir, quick=args.train == "quick", device=device)
    n = args.n and min(PAPER_N, args.n)
    if isinstance(entry, Table):
        assert networks is not None  # a table cannot do without, `_networks` has seen to that
        _table(entry, networks, args.data_dir, only, n, device, out)
    else:
        assert out is not None  # a figure's has a default
        _figure(entry, networks, args.data_dir, only, n, device, out)


def _list() -> list[tuple[str, str, str, str]]:
    entries = [again.load_entry(name) for name in again.list_entries()]
    return [(one.name, again.duration(one.minutes), one.title, one.needs) for one in entries]


def _out(entry: Entry, wish: str | None) -> Path | None:
    """Where to write, if a file can be written there."""
    from .commands import require_writable

    if wish is None and isinstance(entry, Table):
        return None
    out = Path(wish or f"{entry.name}.png")
    if isinstance(entry, Table) and out.suffix.lower() != ".json":
        raise InputError(f"a table's --out must end in .json, got {out}.")
    written = [out] if isinstance(entry, Table) else again.figure_files(out)
    for path in written:
        require_writable(path)
    return out


def _networks(entry: Entry, args: Words, out: Path | None) -> Path | None:
    """The folder of networks; None where a figure is only drawn again."""
    if args.networks is not None:
        return Path(args.networks)
    if args.train is not None:
        return OWN_NETWORKS
    if isinstance(entry, Figure) and out is not None and again.figure_files(out).json.is_file():
        return None
    raise InputError(
        f"reproduce needs --networks, a folder with networks, or --train; {entry.name} takes "
        f"{entry.needs}."
    )


def _table(
    table: Table,
    networks: Path,
    data_dir: str | None,
    only: Sequence[str],
    n: int | None,
    device: torch.device,
    out: Path | None,
) -> None:
    rows = again.reproduce(table, networks, data_dir, only=only, n=n, device=device, out=out)
    print(f"{table.name}: {table.title}")
    for title, header, body in again.paper_and_ours(rows):
        print(f"\n{title}\n{text_table(header, body)}")
    print(f"\n{again.summary(rows)}" + (f"\n{table.note}" if table.note else ""))
    if out is not None:
        page = out.with_suffix(".md")
        again.write_markdown(page, table, rows)
        print(f"written: {out}, {page}")


def _figure(
    figure: Figure,
    networks: Path | None,
    data_dir: str | None,
    only: Sequence[str],
    n: int | None,
    device: torch.device,
    out: Path,
) -> None:
    def time_training(wanted: Sequence[Network]) -> Mapping[Network, IterationTime]:
        recipes = [training.load_recipe(network.recipe) for network in wanted]
        times = training.time_recipes(recipes, data_dir, device=device)
        return {network: IterationTime(*time) for network, time in zip(wanted, times, strict=True)}

    rows = again.reproduce_figure(
        figure,
        networks,
        data_dir,
        out,
        only=only,
        n=n,
        device=device,
        time_training=time_training,
    )
    print(f"{figure.name}: {figure.title}\n")
    cells = [[_cell(key, row.get(key)) for key in figure.columns] for row in rows]
    print(text_table(figure.columns, cells))
    files = again.figure_files(out)
    print(f"written: {files.picture}, {files.json}")


def _cell(key: str, value: Any) -> Cell:
    if value is None:
        return "-"
    if key == "eps" or key == "gamma":
        return format_eps(value)
    return value if isinstance(value, (str, int, float)) else str(value)
