"""What the paper prints: paper.toml as tables of blocks of rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

from .._utils.require import require_known_name
from .networks import Network, choose

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

    def network(self, name: str) -> Network:
        """The network that a row is measured with."""
        return Network(self.dataset, self.model, self.method or name)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: such as "table3".
        title: what it shows.
        kind: "accuracy" (under PGD), "aai" (Kendall's tau under AAI), "corruption" (accuracy under
            unforeseen attacks) or "isa" (NDS and NSL under ISA).
        interpreter: "cam" or "gradcam++" for "aai", else "".
        note: remarks on the printed figures, such as errata, or "".
        blocks: its parts.
        minutes: about how long it takes on two CPU cores, without training.
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
        return ", ".join(
            f"the {block.dataset} {block.model} {block.method} network"
            if block.method
            else f"{len(block.rows)} {block.dataset} {block.model} networks"
            for block in self.blocks
        )

    def chosen(self, only: Sequence[str] = ()) -> list[tuple[Block, str]]:
        """The rows that `only` chooses, each as its block and its name.

        Raises:
            InputError: it chooses none.
        """
        rows = [(block, name) for block in self.blocks for name in block.rows]
        return choose(
            rows, lambda row: (row[0].dataset, row[0].model, row[1]), only, self.name, self.needs
        )

    def needed(self, only: Sequence[str] = ()) -> list[Network]:
        """The networks that the rows chosen by `only` are measured with.

        Raises:
            InputError: it chooses none.
        """
        return list(dict.fromkeys(block.network(name) for block, name in self.chosen(only)))


@cache
def _paper() -> dict[str, Any]:
    text = files(__package__).joinpath("paper.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def list_tables() -> list[str]:
    """The names of the tables that can be reproduced."""
    return list(_paper())


def load_table(name: str) -> PaperTable:
    """A table of the paper by its name.

    Raises:
        InputError: there is no such table here.
    """
    require_known_name("table", name, list_tables())
    found = _paper()[name]
    return PaperTable(
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
        {name: tuple(values) for name, values in found["rows"].items()},
        {name: tuple(values) for name, values in found.get("nsl", {}).items()},
        found.get("method", ""),
        tuple(found.get("squared", ())),
        found.get("n"),
    )


def _columns(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each column of a block, from the lists in paper.toml."""
    if "norms" in found:
        for norm, classes in product(found["norms"], found["classes"]):
            yield {"norm": norm, "classes": classes}
        return
    radii = [float(Fraction(eps)) for eps in found["eps"]]
    for steps in found.get("steps", [200]):
        for attack, eps in zip(found.get("attacks", [None] * len(radii)), radii, strict=True):
            yield {**({"attack": attack} if attack else {}), "eps": eps, "steps": steps}
