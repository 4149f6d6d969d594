"""The folder of a run: one run at a time, its files, and the files that killed runs left."""

from __future__ import annotations

import fcntl
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._utils.errors import InputError, WriteError

STATE, BEFORE = "state.safetensors", "state-before.safetensors"  # the last two
DAMAGED = "state-damaged.safetensors"
NETWORK, BEST = "model.safetensors", "best.safetensors"
AVERAGE = "ema.safetensors"
HISTORY = "history.json"
LOCK = ".lock"

# Ours, and those that safetensors made for version 0.1.
_TEMPORARY = re.compile(
    r"\.(state|state-before|model|best|ema|history)\.\d+\.tmp\.(safetensors|json)|\.tmp[A-Za-z0-9]{6}"
)

_locks: set[int] = set()  # the descriptors of locks that this process holds


def _close_locks() -> None:
    while _locks:
        os.close(_locks.pop())


# A DataLoader's process that outlives a killed run must not hold its lock.
os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def run_folder(out: str | Path | None, resume: bool) -> Iterator[Path | None]:
    """The folder of a run, made, checked and locked; no results are overwritten.

    Raises:
        InputError: `out` cannot be a run's folder, another run is at work in it, or it holds a run
            that is not to be resumed or cannot be.
    """
    if out is None:
        yield None
        return
    folder = _make(out)
    with _lock(folder) as locked:
        _require_resumable(folder, resume)
        if locked:
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name) and path.is_file():
                    path.unlink(missing_ok=True)
        yield folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence that something cannot be written, such as to a full disk."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write into {folder}: {error.strerror or error}; what was saved before is "
            "still there, so make this folder writable or its disk less full, and resume the run."
        ) from error


def _make(out: str | Path) -> Path:
    if out == "":
        raise InputError("out must name a folder, got an empty name.")
    out = Path(out)
    file = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise InputError(f"out must be a folder, and {file} is a file; choose another name.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}.") from error
    if not os.access(out, os.W_OK):
        raise InputError(f"cannot write into {out}; choose another folder.")
    return out


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which ends with the process. False if its disk knows no locks."""
    with writing(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _locks.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError as error:
            raise InputError(
                f"Another run is training in {folder}; wait until it ends, stop it, or choose "
                "another folder."
            ) from error
        except OSError as error:
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}); start no second run in it.",
                stacklevel=2,
            )
            locked = False
        yield locked
    finally:
        if descriptor in _locks:  # not in a forked process
            _locks.remove(descriptor)
            os.close(descriptor)


def _require_resumable(folder: Path, resume: bool) -> None:
    state = (folder / STATE).exists() or (folder / BEFORE).exists()
    network = (folder / NETWORK).exists()
    if resume and network and not state:
        raise InputError(
            f"{folder} holds a trained network but no state to resume from; choose another folder."
        )
    if not resume and (state or network):
        raise InputError(
            f"{folder} holds a run already; pass resume (--resume) to continue it, "
            "or choose another folder."
        )
