"""What a figure of the paper is: what it needs, how it is measured, how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from ... import data, models
from ..._utils.errors import InputError
from ...data import ImageData
from ...models.gap import GapClassifier
from ..choose import kept
from ..networks import Network, find_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Measured:
    """What a picture is drawn from, and nothing else.

    Attributes:
        rows: JSON values, kept as "rows" in the figure's JSON.
        arrays: images and maps, kept beside it in an .npz file of the same name; most figures have
            none.
    """

    rows: Rows
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """Where a figure's networks and data come from, and what an earlier run has left.

    Attributes:
        networks: folder of networks; None where none was given, which is enough to draw again what
            `known` holds.
        data_dir: folder that holds the data sets.
        device: where to measure.
        n: images.
        only: words that choose among the figure's networks; none: all.
        progress: show bars where standard error is a terminal.
        known: what an earlier run of the same figure and n has measured; empty at first.
        keep: to be called with everything measured so far, so that a stopped run goes on.
    """

    networks: Path | None
    data_dir: Path | None
    device: torch.device
    n: int
    only: tuple[str, ...] = ()
    progress: bool = True
    known: Measured = field(default_factory=lambda: Measured([]))
    keep: Callable[[Measured], None] = lambda measured: None

    def find(self, network: Network) -> Path | None:
        """The file of a network; None where it, or any folder of networks, is missing."""
        return None if self.networks is None else find_network(self.networks, network)

    def load(self, network: Network) -> GapClassifier:
        """A network, on the device, in eval mode.

        Raises:
            InputError: it is not there.
        """
        path = self.find(network)
        if path is None:
            where = "" if self.networks is None else f" in {self.networks}"
            raise InputError(
                f"There is no network {network}{where}; give --networks, the folder that holds it "
                "(or let --train make it)."
            )
        return models.load(path, map_location=self.device).eval()

    def images(self, dataset: str) -> ImageData:
        """The test split of a data set, on the device."""
        return data.load(dataset, self.data_dir, "test", self.device)


@dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Attributes:
        name: such as "fig3".
        title: what it shows, one line.
        needs: the networks and data that it is measured with, in words.
        minutes: about how long it takes on two CPU cores, with the networks at hand.
        networks: those that it takes, so that missing ones can be trained.
        measure: measures what `setting.known` does not hold yet. A run that takes more than a
            minute calls `setting.keep` as it goes.
        draw: makes the picture of what was measured, or read again from its files. matplotlib is
            imported inside.
        columns: the keys of the rows that the command prints as a table.
        n: images by default.
        alternatives: whether it is measured with one of its networks alone, the first that is
            chosen.
    """

    name: str
    title: str
    needs: str
    minutes: float
    networks: tuple[Network, ...]
    measure: Callable[[Setting], Measured]
    draw: Callable[[Measured], Picture]
    columns: tuple[str, ...]
    n: int = 200
    alternatives: bool = False

    def chosen(self, only: Sequence[str] = ()) -> list[Network]:
        """The networks that `only` keeps.

        Raises:
            InputError: it keeps none.
        """
        keep = kept([network.words for network in self.networks], only)
        if not any(keep):
            raise InputError(
                f"{self.name} has nothing to do with {' '.join(only)}; it is about {self.needs}."
            )
        return list(compress(self.networks, keep))

    def needed(self, only: Sequence[str] = ()) -> list[Network]:
        """The networks that it is measured with, where `only` is asked for.

        Raises:
            InputError: `only` keeps none.
        """
        return self.chosen(only)[: 1 if self.alternatives else None]
