"""`fastinterp reproduce`: train what is missing, measure, and show it beside the paper."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from .. import reproduce
from .._utils import processes
from .._utils.errors import InputError
from .._utils.files import require_writable
from ..evaluation.protocols import PAPER_N
from ..evaluation.tables import Cell, format_eps, text_table
from ..reproduce import PaperFigure, PaperTable

Words = argparse.Namespace
OWN_NETWORKS = Path("runs") / "networks"


def run(args: Words, device: torch.device) -> None:
    """Run `fastinterp reproduce`.

    Raises:
        InputError: an argument does not fit, or a file that it names is missing.
    """
    if args.list:
        entries = [reproduce.load_entry(name) for name in reproduce.list_entries()]
        lines = [(one.name, _duration(one.minutes), one.title, one.needs) for one in entries]
        print(text_table(("name", "takes", "what it shows", "what it needs"), lines))
        return
    if args.name is None:
        taken = next((word for word in args.only if word in reproduce.list_entries()), None)
        hint = "`fastinterp reproduce --list` shows them."
        if taken is not None:
            hint = f"{taken!r} was read as a word of --only; put the name before the options."
        raise InputError(f"reproduce needs the name of a table or figure; {hint}")
    entry = reproduce.load_entry(args.name)
    if args.interpreters and getattr(entry, "kind", None) != "isa":
        raise InputError(
            f"--interpreters chooses rows of table1 and {entry.name} has none; leave it out."
        )
    args.n = args.n and min(PAPER_N, args.n)  # the paper's selection has no more
    if isinstance(entry, PaperTable):
        out = _table(entry, args, device)
    else:
        out = _figure(entry, args, device)
    if out and processes.rank() == 0 and (notice := reproduce.measured_otherwise(out[0], device)):
        print(f"note: {notice}")
    if out:
        print(f"written: {', '.join(map(str, out))}")


def _table(table: PaperTable, args: Words, device: torch.device) -> list[Path]:
    """Measure and print a table; return the files that were written, JSON first."""
    out = [] if args.out is None else [Path(args.out), Path(args.out).with_suffix(".md")]
    if out and out[0].suffix.lower() != ".json":
        raise InputError(f"A table's --out must end in .json, got {out[0]}.")
    for path in out:
        require_writable(path)
    only = [*args.only, *args.interpreters]
    rows = reproduce.reproduce_table(
        table,
        _networks(table, only, args, device),
        args.data_dir,
        only=only,
        n=args.n,
        device=device,
        out=out[0] if out else None,
    )
    print(f"{table.name}: {table.title}")
    for title, header, body in reproduce.paper_and_ours(rows):
        print(f"\n{title}\n{text_table(header, body)}")
    print(f"\n{reproduce.summary(rows)}" + (f"\n{table.note}" if table.note else ""))
    if out and processes.rank() == 0:
        reproduce.write_markdown(out[1], table, rows)
    return out


def _figure(figure: PaperFigure, args: Words, device: torch.device) -> list[Path]:
    """Measure and draw a figure, print its rows; return the files that were written, JSON first."""
    files = reproduce.figure_files(args.out or f"{figure.name}.png")
    for path in files:
        require_writable(path)
    figure.chosen(args.only)
    networks = None
    if args.networks or args.train or not files.json.is_file():
        networks = _networks(figure, args.only, args, device)
    rows = reproduce.reproduce_figure(
        figure, networks, args.data_dir, files.picture, only=args.only, n=args.n, device=device
    )
    print(f"{figure.name}: {figure.title}\n")
    cells = [[_cell(key, row.get(key)) for key in figure.columns] for row in rows]
    print(text_table(figure.columns, cells))
    return list(files)


def _networks(
    entry: PaperTable | PaperFigure, only: list[str], args: Words, device: torch.device
) -> Path:
    """The folder of networks, after training those that it lacks if --train is given."""
    if args.networks is None and args.train is None:
        raise InputError(
            f"reproduce needs --networks, a folder with networks, or --train; {entry.name} takes "
            f"{entry.needs}."
        )
    networks = OWN_NETWORKS if args.networks is None else Path(args.networks)
    needed = entry.needed(only)
    if args.train is not None:
        quick = args.train == "quick"
        reproduce.train_missing(needed, networks, args.data_dir, quick=quick, device=device)
    return networks


def _duration(minutes: float) -> str:
    """Such as "about 4 min" or "about 3 h"."""
    if minutes < 90:
        return f"about {max(1, round(minutes))} min"
    hours = minutes / 60
    return f"about {round(hours)} h" if hours < 72 else f"about {round(hours / 24)} days"


def _cell(key: str, value: Any) -> Cell:
    if value is None:
        return "-"
    if key == "eps" or key == "gamma":
        return format_eps(value)
    return value if isinstance(value, (str, int, float)) else str(value)
