"""Finding the files of a data set below the folder that a user gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .._utils.errors import InputError


def find_files(
    what: str,
    root: Path,
    places: Sequence[Sequence[Path]],
    layout: str,
    *,
    zipped: bool = False,
    allow_partial: bool | None = None,
) -> list[Path]:
    """The files of a split, from the place where most of them are.

    Args:
        what: "the train split of mnist", for errors.
        root: the user's folder, for errors.
        places: the paths of the files in each place where they may be, the likeliest place first.
        layout: what `root` should hold, for errors.
        zipped: also accept a file with the suffix .gz.
        allow_partial: accept a place where only some files are; None: this cannot be chosen.

    Raises:
        InputError: no file is there, or some are missing, which the error names.
    """

    def present(path: Path) -> Path | None:
        forms = (path, path.with_name(f"{path.name}.gz")) if zipped else (path,)
        return next((form for form in forms if form.is_file()), None)

    wanted = max(places, key=lambda paths: sum(present(path) is not None for path in paths))
    found = [path for each in wanted if (path := present(each)) is not None]
    missing = [path.name for path in wanted if present(path) is None]
    if not found:
        raise InputError(f"{root} does not hold {what}: expected {layout}.")
    if missing and not allow_partial:
        choice = "" if allow_partial is None else ", or pass allow_partial=True to load the rest"
        raise InputError(
            f"{wanted[0].parent} lacks files of {what}: {', '.join(missing)}; add them{choice}."
        )
    return found
