"""What the paper prints: paper.toml as tables of blocks of rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

from ...errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Block:
    """The rows of a table that share a data set and an architecture.

    Attributes:
        dataset, model: as `fastinterp.data.load` and the recipes name them.
        columns: the cells' (eps, steps).
        rows: training method -> what the paper prints, a number for each column.
    """

    dataset: str
    model: str
    columns: tuple[tuple[float, int], ...]
    rows: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: such as "table3".
        title: what it shows.
        kind: "accuracy" (under PGD) or "aai" (Kendall's tau under AAI).
        interpreter: "cam" or "gradcam++" for "aai", else "".
        note: errata that the rows have been rid of, or "".
        blocks: its parts.
    """

    name: str
    title: str
    kind: str
    interpreter: str
    note: str
    blocks: tuple[Block, ...]

    @property
    def needs(self) -> str:
        """The networks and data that it is measured with, in words."""
        parts = [f"{len(b.rows)} {b.dataset} {b.model} networks" for b in self.blocks]
        return ", ".join(parts)


@cache
def _paper() -> dict[str, Any]:
    text = files(__package__).joinpath("paper.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def list_tables() -> list[str]:
    """The names of the tables that can be reproduced."""
    return list(_paper())


def load_table(name: str) -> Table:
    """A table of the paper by its name.

    Raises:
        InputError: there is no such table here.
    """
    if name not in _paper():
        near = get_close_matches(name, list_tables(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(list_tables())}."
        raise InputError(f"There is no {name!r} to reproduce; {hint}")
    found = _paper()[name]
    return Table(
        name,
        found["title"],
        found["kind"],
        found.get("interpreter", ""),
        found.get("note", ""),
        tuple(_block(block) for block in found["blocks"]),
    )


def _block(found: Mapping[str, Any]) -> Block:
    radii = [float(Fraction(eps)) for eps in found["eps"]]
    columns = [(eps, steps) for steps in found.get("steps", [200]) for eps in radii]
    rows = {method: tuple(values) for method, values in found["rows"].items()}
    return Block(found["dataset"], found["model"], tuple(columns), rows)
