"""What the paper prints: paper.toml as tables of blocks of rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

from .._utils.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Block:
    """The rows of a table that share a data set and an architecture.

    Attributes:
        dataset, model: as `fastinterp.data.load` and the recipes name them.
        columns: what sets the cells of a row apart, by name: "eps" and "steps", with "attack" for
            "corruption"; "norm" and "classes" for "isa".
        rows: training method ("isa": interpreter) -> what the paper prints, a number for each
            column; NaN where it prints none.
        nsl: for "isa", whose `rows` are NDS, likewise the paper's NSL.
        method: for "isa", the training method of the network that all rows share.
        squared: for "isa", the interpreters whose 1-class l2 cells are of the squared discrepancy.
        n: images by default; None: the kind's default.
    """

    dataset: str
    model: str
    columns: tuple[Mapping[str, Any], ...]
    rows: Mapping[str, tuple[float, ...]]
    nsl: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    method: str = ""
    squared: tuple[str, ...] = ()
    n: int | None = None

    @property
    def networks(self) -> int:
        """How many networks it is measured with."""
        return 1 if self.method else len(self.rows)


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: such as "table3".
        title: what it shows.
        kind: "accuracy" (under PGD), "aai" (Kendall's tau under AAI), "corruption" (accuracy under
            unforeseen attacks) or "isa" (NDS and NSL under ISA).
        interpreter: "cam" or "gradcam++" for "aai", else "".
        note: what is to be known about the printed figures, errata foremost, or "".
        blocks: its parts.
        minutes: about how long it takes on two CPU cores, with the networks at hand.
    """

    name: str
    title: str
    kind: str
    interpreter: str
    note: str
    blocks: tuple[Block, ...]
    minutes: float = 0.0

    @property
    def needs(self) -> str:
        """The networks and data that it is measured with, in words."""
        parts = []
        for block in self.blocks:
            which = f"{block.dataset} {block.model}"
            one = f"the {which} {block.method} network"
            parts.append(one if block.method else f"{block.networks} {which} networks")
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
        found["minutes"],
    )


def _block(found: Mapping[str, Any]) -> Block:
    return Block(
        found["dataset"],
        found["model"],
        tuple(_columns(found)),
        _numbers(found["rows"]),
        _numbers(found.get("nsl", {})),
        found.get("method", ""),
        tuple(found.get("squared", ())),
        found.get("n"),
    )


def _columns(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What paper.toml says of the columns, spelt out for each of them."""
    if "norms" in found:
        for norm, classes in product(found["norms"], found["classes"]):
            yield {"norm": norm, "classes": classes}
        return
    radii = [float(Fraction(eps)) for eps in found["eps"]]
    for steps in found.get("steps", [200]):
        for attack, eps in zip(found.get("attacks", [None] * len(radii)), radii, strict=True):
            yield {**({"attack": attack} if attack else {}), "eps": eps, "steps": steps}


def _numbers(found: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(values) for name, values in found.items()}
