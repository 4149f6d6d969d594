"""`fastinterp reproduce`: train what is missing, measure, and show it beside the paper."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import reproduce as again
from .._utils.errors import InputError
from .._utils.files import require_writable
from ..evaluation.protocols import PAPER_N
from ..evaluation.tables import Cell, format_eps, text_table
from ..reproduce import Entry, Figure, Network, Table
from ..reproduce.train_missing import train_missing

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
        taken = next((word for word in args.only if word in again.list_entries()), None)
        hint = "`fastinterp reproduce --list` shows them."
        if taken is not None:
            hint = f"{taken!r} was taken for a word of --only; the name stands before the options."
        raise InputError(f"reproduce needs a name; {hint}")
    entry = again.load_entry(args.name)
    if isinstance(entry, Table):
        _table(entry, args, device)
    else:
        _figure(entry, args, device)


def _list() -> list[tuple[str, str, str, str]]:
    entries = [again.load_entry(name) for name in again.list_entries()]
    return [(one.name, again.duration(one.minutes), one.title, one.needs) for one in entries]


def _table(table: Table, args: Words, device: torch.device) -> None:
    if args.interpreters and table.kind != "isa":
        raise InputError(f"--interpreters chooses rows of table1; {table.name} has none to choose.")
    out = None if args.out is None else Path(args.out)
    if out is not None and out.suffix.lower() != ".json":
        raise InputError(f"a table's --out must end in .json, got {out}.")
    _require_writable([] if out is None else [out])
    only = [*args.only, *args.interpreters]
    networks = _networks(table, args)
    _train(again.needed(table, only), networks, args, device)
    rows = again.reproduce(
        table, networks, args.data_dir, only=only, n=_count(args), device=device, out=out
    )
    print(f"{table.name}: {table.title}")
    for title, header, body in again.paper_and_ours(rows):
        print(f"\n{title}\n{text_table(header, body)}")
    print(f"\n{again.summary(rows)}" + (f"\n{table.note}" if table.note else ""))
    notice = again.measured_otherwise(rows, device)
    if notice:
        print(f"note: {notice}")
    if out is not None:
        page = out.with_suffix(".md")
        again.write_markdown(page, table, rows)
        print(f"written: {out}, {page}")


def _figure(figure: Figure, args: Words, device: torch.device) -> None:
    if args.interpreters:
        raise InputError(
            f"--interpreters chooses rows of table1; {figure.name} has none to choose."
        )
    out = args.out or f"{figure.name}.png"
    files = again.figure_files(out)
    _require_writable(files)
    needed = figure.needed(args.only)
    networks = None
    if args.networks or args.train or not files.json.is_file():
        networks = _networks(figure, args)
        _train(needed, networks, args, device)

    rows = again.reproduce_figure(
        figure,
        networks,
        args.data_dir,
        out,
        only=args.only,
        n=_count(args),
        device=device,
    )
    print(f"{figure.name}: {figure.title}\n")
    cells = [[_cell(key, row.get(key)) for key in figure.columns] for row in rows]
    print(text_table(figure.columns, cells))
    notice = again.figure_measured_otherwise(out, device)
    if notice:
        print(f"note: {notice}")
    print(f"written: {files.picture}, {files.json}")


def _networks(entry: Entry, args: Words) -> Path:
    """The folder of networks."""
    if args.networks is None and args.train is None:
        raise InputError(
            f"reproduce needs --networks, a folder with networks, or --train; {entry.name} takes "
            f"{entry.needs}."
        )
    return OWN_NETWORKS if args.networks is None else Path(args.networks)


def _train(needed: Sequence[Network], networks: Path, args: Words, device: torch.device) -> None:
    if args.train is not None:
        train_missing(needed, networks, args.data_dir, quick=args.train == "quick", device=device)


def _count(args: Words) -> int | None:
    """How many images; the paper's selection has no more than so many."""
    return None if args.n is None else min(PAPER_N, args.n)


def _require_writable(paths: Iterable[Path]) -> None:
    for path in paths:
        require_writable(path)


def _cell(key: str, value: Any) -> Cell:
    if value is None:
        return "-"
    if key == "eps" or key == "gamma":
        return format_eps(value)
    return value if isinstance(value, (str, int, float)) else str(value)
