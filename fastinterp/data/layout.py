"""Finding a data set's files below the folder that a user gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .._utils.errors import InputError


class Place(NamedTuple):
    """A folder where files may lie: each file under its name or that name and a suffix."""

    folder: Path
    names: tuple[str, ...]
    suffixes: tuple[str, ...] = ("",)

    def present(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name in self.names:
            for suffix in self.suffixes:
                path = self.folder / (name + suffix)
                if path.is_file():
                    found.setdefault(name, path)
        return found


def find_files(
    dataset: str,
    root: Path,
    split: str,
    places: Sequence[Place],
    layout: str,
    allow_partial: bool | None = None,
) -> list[Path]:
    """The files of a split, from the place that holds most of them.

    Args:
        dataset, split: named in errors.
        root: the folder that the user gave, named in errors.
        places: where to look, the likeliest first.
        layout: what `root` should hold, for the error where it holds nothing of it.
        allow_partial: take the files that are there, as long as there is one; None where the
            caller leaves no such choice.

    Raises:
        InputError: no file is there, or some are missing (which ones is said).
    """
    place = max(places, key=lambda place: len(place.present()))
    found = place.present()
    if not found:
        raise InputError(f"There is no {split} split of {dataset} in {root}: expected {layout}.")
    missing = [name for name in place.names if name not in found]
    if missing and not allow_partial:
        choice = "" if allow_partial is None else ", or pass allow_partial=True to go without"
        raise InputError(
            f"The {split} split of {dataset} in {place.folder} is incomplete: "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"add what is missing{choice}."
        )
    return list(found.values())
