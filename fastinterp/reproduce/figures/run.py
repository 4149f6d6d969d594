"""Measuring and drawing a figure: its JSON, its arrays and its picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..._utils import processes
from ..._utils.errors import InputError
from ..._utils.require import require_count
from ...evaluation.pictures import SUFFIXES, picture_path, save_picture
from ..results import ResultRow, Results, ResultsFile, versions
from .figure import PaperFigure, Setting


class Files(NamedTuple):
    """The files of a figure.

    Attributes:
        json: the rows that the picture is drawn from; arrays are stored beside it, as .npz.
        picture: .png, .pdf or .svg.
    """

    json: Path
    picture: Path


def figure_files(out: str | Path) -> Files:
    """The files of a figure by the name of its JSON or of its picture.

    Raises:
        InputError: the name has another suffix.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix != ".json" and suffix not in SUFFIXES:
        raise InputError(
            f"The name of a figure must end in .json or, for its picture, {', '.join(SUFFIXES)}, "
            f"got {out}."
        )
    picture = out.with_suffix(".png") if suffix == ".json" else picture_path(out)
    return Files(out.with_suffix(".json"), picture)


def reproduce_figure(
    figure: PaperFigure,
    networks: str | Path | None,
    data_dir: str | Path | None,
    out: str | Path,
    *,
    only: Sequence[str] = (),
    n: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> list[ResultRow]:
    """Measure a figure of the paper with the networks of a folder, and draw it.

    Args:
        figure: one of `FIGURES`.
        networks: folder with released .pkl files, or with runs of `fastinterp train`; None draws
            again what `out` holds.
        data_dir: folder that holds the data sets.
        out: the JSON or the picture; the other is written beside it, and so are arrays if the
            figure has any. What they hold of the same figure and n is not measured again.
        only: words that choose among the figure's networks; none: all.
        n: images; by default the figure's own number.
        device: where to measure.
        progress: show bars where standard error is a terminal.

    Returns:
        The rows that the picture is drawn from.

    Raises:
        InputError: a folder, data set or network is missing, `out` holds something else, or `only`
            chooses nothing.
    """
    files = figure_files(out)
    figure.chosen(only)
    count = require_count("n", figure.n if n is None else n)
    file = ResultsFile(files.json, "figure", figure.name)
    known = file.read(count)
    by = list(known.measured_by)
    here = versions(torch.device(device))
    if networks is not None and here not in by:
        by.append(here)

    def save(results: Results) -> None:
        file.write(replace(results, measured_by=by), title=figure.title, n=count)

    setting = Setting(
        None if networks is None else Path(networks),
        None if data_dir is None else Path(data_dir),
        torch.device(device),
        count,
        tuple(only),
        progress,
        known,
        save,
    )
    results = figure.measure(setting)
    save(results)
    if processes.rank() == 0:
        save_picture(figure.draw(results), files.picture)
    return results.rows
