"""Files of results, which a stopped run continues, and the code that measured what they hold."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .._utils import processes
from .._utils.errors import InputError
from .._utils.files import atomic_path, write_json
from .._version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
# What rows hold, by key; JSON files may have been edited by hand.
WORDS = {"dataset", "model", "method", "network", "recipe", "interpreter", "attack", "norm"}
WORDS |= {"classes", "not_judged"}
NUMBERS = {"n", "eps", "steps", "paper", "ours", "difference", "tolerance", "paper_nsl", "nds"}
NUMBERS |= {"nsl", "nds_squared", "nsl_squared", "accuracy", "n_counted", "n_unchanged"}
ROW_KEYS = {"dataset", "model", "method"}  # every row of every table and figure has these
TABLE_KEYS = ROW_KEYS | {"network", "n", "paper", "ours", "tolerance", "within"}

ResultRow = dict[str, Any]
Versions = dict[str, str | None]


@dataclass(frozen=True)
class Results:
    """What was measured for a table or figure.

    Attributes:
        rows: JSON values.
        arrays: images and maps. Only figures have them.
        measured_by: the versions that took part, where the rows do not say so themselves; None
            stands for a version that did not record itself.
    """

    rows: list[ResultRow] = field(default_factory=list)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    measured_by: list[Versions | None] = field(default_factory=list)


@dataclass(frozen=True)
class ResultsFile:
    """The JSON file of a table or figure. Arrays are stored beside it, in an .npz file.

    Attributes:
        path: the JSON file; None: there is nothing to read, and nothing is written.
        kind, name: what the file must be about.
    """

    path: Path | None
    kind: Literal["table", "figure"]
    name: str

    def read(self, n: int | None = None) -> Results:
        """The results of an earlier run; none where the file or its arrays are missing.

        Args:
            n: results that were measured on another number of images are ignored; None takes all.

        Raises:
            InputError: the file holds something else.
        """
        return processes.from_first(partial(self._read, n))

    def _read(self, n: int | None) -> Results:
        if self.path is None or not self.path.is_file():
            return Results()
        found = _read_json(self.path)
        rows: Any = found.get("rows")
        keys = TABLE_KEYS if self.kind == "table" else ROW_KEYS
        sources = found.get("measured_by", [])
        known = isinstance(sources, list) and all(map(_is_versions, sources))
        if found.get(self.kind) != self.name or not known or not _are_rows(rows, keys):
            raise InputError(
                f"{self.path} holds something else than {self.name}; name another file with "
                "--out, or remove this one."
            )
        by = list(found.get("measured_by", [None] if rows else []))
        if n is not None and found.get("n") != n:
            return Results()
        if found.get("arrays") is None:
            return Results(rows, measured_by=by)
        try:
            with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as arrays:
                return Results(rows, dict(arrays), by)
        except (OSError, ValueError, zipfile.BadZipFile):
            return Results()

    def write(self, results: Results, **about: Any) -> None:
        """Write results and, beside them in the JSON, `about`; atomically. One process does."""
        if self.path is None or processes.rank() > 0:
            return
        if results.arrays:  # before the rows, which must not name arrays that are missing
            with atomic_path(self.path.with_suffix(".npz")) as temporary:
                np.savez_compressed(temporary, allow_pickle=False, **results.arrays)
            about["arrays"] = self.path.with_suffix(".npz").name
        if results.measured_by:
            about["measured_by"] = results.measured_by
        write_json(self.path, {self.kind: self.name, **about, "rows": results.rows})


def measured_otherwise(path: str | Path, device: str | torch.device) -> str:
    """A sentence on the results in a file that other code, torch or device measured; "" if none."""
    here = versions(torch.device(device))
    found = _read_json(Path(path))
    sources = found.get("measured_by")
    if sources is None:
        sources = [row.get("versions") for row in found["rows"] if row.get("network")]
    others = dict.fromkeys(_words(source) for source in sources if source != here)
    if not others:
        return ""
    return (
        f"{path} holds results that were measured with {'; '.join(others)}. This is "
        f"{_words(here)}. Remove the file to measure them again."
    )


def versions(device: torch.device) -> Versions:
    """fastinterp's version and git commit (None if it is installed), torch's, and the device."""
    cuda = device.type == "cuda"
    return {
        "fastinterp": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
    }


def _words(found: Versions | None) -> str:
    if found is None:
        return "a version that did not record itself"
    at = f" at {found['commit']}" if found["commit"] else ""
    return f"fastinterp {found['fastinterp']}{at}, torch {found['torch']}, {found['device']}"


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it holds anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _are_rows(rows: object, keys: set[str]) -> bool:
    return isinstance(rows, list) and all(_is_row(row, keys) for row in rows)


def _is_row(row: object, keys: set[str]) -> bool:
    """Whether it has these keys, and values of the right kind under all keys that are known."""
    return (
        isinstance(row, dict)
        and row.keys() >= keys
        and all(isinstance(row[key], str) for key in ROW_KEYS)
        and all(isinstance(row[key], str | None) for key in WORDS & row.keys())
        and all(isinstance(row[key], int | float | None) for key in NUMBERS & row.keys())
        and isinstance(row.get("within"), bool | None)
        and ("paper" not in keys or isinstance(row["paper"], int | float))
        and _is_versions(row.get("versions"))
    )


def _is_versions(found: object) -> bool:
    if not isinstance(found, dict):
        return found is None
    wanted = {"fastinterp", "commit", "torch", "device"}
    return found.keys() >= wanted and all(isinstance(value, str | None) for value in found.values())


@cache
def _commit() -> str | None:
    """The commit of a checkout, with a "+" if the package has uncommitted changes.

    It is read once: files that change under a running program are not the code that runs.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    head = _git("rev-parse", "--short=10", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git("status", "--porcelain", "--", str(PACKAGE)) else "")


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(PACKAGE), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
