"""Measuring and drawing a figure: its JSON, its arrays and its picture, side by side."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..._utils.errors import InputError
from ..._utils.files import atomic_path, write_json
from ...evaluation.pictures import SUFFIXES, picture_path, save_picture
from ..versions import described, versions
from .figure import Figure, Measured, Rows, Setting


class Files(NamedTuple):
    """Where a figure is written.

    Attributes:
        json: what the picture is drawn from.
        arrays: images and maps, where the figure has any.
        picture: .png, .pdf or .svg.
    """

    json: Path
    arrays: Path
    picture: Path


def figure_files(out: str | Path) -> Files:
    """The files of a figure by the name of its JSON or of its picture.

    Raises:
        InputError: the name ends otherwise.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix != ".json" and suffix not in SUFFIXES:
        raise InputError(
            f"a figure's name must end in .json or, for the picture, {', '.join(SUFFIXES)}, "
            f"got {out}."
        )
    picture = out.with_suffix(".png") if suffix == ".json" else picture_path(out)
    return Files(out.with_suffix(".json"), out.with_suffix(".npz"), picture)


def reproduce_figure(
    figure: Figure,
    networks: str | Path | None,
    data_dir: str | Path | None,
    out: str | Path,
    *,
    only: Sequence[str] = (),
    n: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Rows:
    """Measure a figure of the paper with the networks at hand, and draw it.

    Args:
        figure: one of `FIGURES`.
        networks: folder with released .pkl files, or with runs of `fastinterp train`; None draws
            again what `out` holds.
        data_dir: folder that holds the data sets.
        out: the JSON or the picture; the other lies beside it, and so do arrays if there are any.
            What they already hold of the same figure and n is not measured again.
        only: words that choose among the figure's networks; none: all.
        n: images; by default the figure's own number.
        device: where to measure.
        progress: show bars where standard error is a terminal.

    Returns:
        The rows that the picture is drawn from.

    Raises:
        InputError: a folder, data set or network is not there, `out` holds something else, or
            `only` keeps nothing.
    """
    files = figure_files(out)
    count = figure.n if n is None else n
    figure.chosen(only)
    known = _known(figure, files, count)
    by = _measured_by(files) if known.rows else []
    here = versions(torch.device(device))
    if networks is not None and here not in by:
        by.append(here)
    setting = Setting(
        None if networks is None else Path(networks),
        None if data_dir is None else Path(data_dir),
        torch.device(device),
        count,
        tuple(only),
        progress,
        known,
        _keeper(figure, files, count, by),
    )
    measured = figure.measure(setting)
    setting.keep(measured)
    save_picture(figure.draw(measured), files.picture)
    return measured.rows


def _keeper(figure: Figure, files: Files, n: int, by: list[Any]) -> Callable[[Measured], None]:
    def keep(measured: Measured) -> None:
        if measured.arrays:  # first, so that rows never speak of arrays that are not there
            with atomic_path(files.arrays) as temporary:
                np.savez_compressed(temporary, allow_pickle=False, **measured.arrays)
        arrays = files.arrays.name if measured.arrays else None
        about = {"figure": figure.name, "title": figure.title, "n": n, "arrays": arrays}
        write_json(files.json, {**about, "measured_by": by, "rows": measured.rows})

    return keep


def _measured_by(files: Files) -> list[Any]:
    """The code that had a part in what a file holds; one that does not say is None."""
    found = json.loads(files.json.read_text(encoding="utf-8"))
    return list(found.get("measured_by", [None]))


def figure_measured_otherwise(out: str | Path, device: str | torch.device) -> str:
    """What to say of a figure in which other code than the present one has a part, or ""."""
    here = versions(torch.device(device))
    others = [described(each) for each in _measured_by(figure_files(out)) if each != here]
    if not others:
        return ""
    return (
        f"the file holds what was measured with {'; '.join(others)} (this is {described(here)}); "
        "remove it to measure anew."
    )


def _known(figure: Figure, files: Files, n: int) -> Measured:
    """What an earlier run has left; nothing where it took another number of images."""
    if not files.json.is_file():
        return Measured([])
    try:
        found = json.loads(files.json.read_text(encoding="utf-8"))
        if found["figure"] != figure.name:
            raise KeyError("another figure")
        rows, arrays = found["rows"], found["arrays"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{files.json} holds something else than {figure.name}; name another file with --out, "
            "or remove it."
        ) from error
    if found["n"] != n:
        return Measured([])
    if arrays is None:
        return Measured(rows)
    try:
        with np.load(files.arrays, allow_pickle=False) as stored:
            return Measured(rows, dict(stored))
    except (OSError, ValueError, zipfile.BadZipFile):
        return Measured([])  # without its arrays a figure is measured anew
