"""Verdicts of attacks that are done, in a file, so that a measurement goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._utils import processes
from .._utils.errors import InputError
from .._utils.files import write_json


@dataclass
class Entry:
    """What is saved of one batch in one cell: attacks that are done, and the verdicts of each."""

    entries: dict[str, Any]
    name: str
    path: Path | None

    def read(self, fresh: Tensor) -> tuple[Tensor, int]:
        """The verdicts int64 [N] and the number of attacks that are done; `fresh` and 0 at first.

        Raises:
            InputError: the file holds verdicts of another number of images.
        """
        saved = self.entries.get(self.name)
        if saved is None:
            return fresh, 0
        by = torch.tensor(saved["by"], dtype=fresh.dtype, device=fresh.device)
        if by.shape != fresh.shape:
            raise InputError(
                f"{self.path} holds verdicts of {len(by)} images where there are {len(fresh)}; "
                "remove it to measure anew."
            )
        return by, int(saved["done"])

    def write(self, by: Tensor, done: int) -> None:
        if self.path is not None:
            self.entries[self.name] = {"done": done, "by": by.tolist()}
            write_json(self.path, self.entries)


@dataclass
class Saved:
    """The entries of one measurement."""

    path: Path | None
    entries: dict[str, Any]

    def entry(self, name: str) -> Entry:
        return Entry(self.entries, name, self.path)


@contextmanager
def saved_verdicts(
    path: str | Path | None, model: nn.Module, x: Tensor, settings: tuple[Any, ...]
) -> Iterator[Saved]:
    """The verdicts that `path` holds of the same measurement; the file goes at the end.

    What was measured otherwise, with another network, other images or settings, is left out. Each
    process has a file of its own.
    """
    if path is None:
        yield Saved(None, {})
        return
    own = Path(path)
    if processes.world() > 1:
        own = own.with_name(f"{own.name}.{processes.rank()}-of-{processes.world()}")
    key = _key(model, x, settings)
    entries: dict[str, Any] = {}
    try:
        found = json.loads(own.read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("measurement") == key:
            entries = found
    except (OSError, ValueError):
        pass  # there is none, or it was cut off
    entries["measurement"] = key
    yield Saved(own, entries)
    own.unlink(missing_ok=True)


def _key(model: nn.Module, x: Tensor, settings: tuple[Any, ...]) -> str:
    """A hash of weights, of some images and of the settings."""
    digest = sha256(repr(settings).encode())
    for tensor in (*model.state_dict().values(), x):
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
