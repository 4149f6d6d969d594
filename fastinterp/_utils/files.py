"""Reading files of bounded size, and writing them atomically: a reader never sees half of one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

_SMALL = 2**24
_TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp(\..*)?", re.DOTALL)


def usable_file(path: str | Path) -> Path:
    """The path of a regular file that fits into memory. A pipe or a device may never end.

    Raises:
        InputError: it is none.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {_reason(error)}; check the path.") from error
    if not path.is_file():
        raise InputError(f"Cannot read {path}: it is no regular file; give the path of a file.")
    if size > _SMALL:  # asking how much is free takes 5% of the time of reading a photo
        require_memory(size, f"The file {path}", "use a smaller file")
    return path


def read_file(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: as `usable_file`, or the file cannot be read.
    """
    path = usable_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def require_memory(needed: int, what: str, advice: str) -> None:
    """Raise if so many bytes are not free. `what` is the subject of the error."""
    free = _free_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{what} needs {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; "
            f"{advice}."
        )


def _free_memory() -> int | None:
    """Available bytes, where Linux says so."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if found is None else int(found[1]) * 1024


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds.

    The temporary name has the same suffix, by which writers such as matplotlib choose a format.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: str | Path) -> None:
    """Remove the temporary files that killed processes of this machine left in a folder."""
    for path in Path(folder).glob(".*.tmp*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _is_running(int(found[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def require_writable(path: Path) -> None:
    """Make the folder of a file that will be written after hours of work.

    Raises:
        InputError: `path` is a folder, or its own folder cannot be made or written to.
    """
    if path.is_dir():
        raise InputError(f"--out names a folder, {path}; give the name of a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {path.parent}: {error.strerror}; choose another --out."
        ) from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write into the folder {path.parent}; choose another --out.")
