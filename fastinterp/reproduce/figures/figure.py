"""What a figure of the paper is: what it needs, how it is measured, how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..networks import Network, Sources, choose
from ..results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Setting(Sources):
    """How a figure is measured: with which networks and data, and what is known already.

    Attributes:
        networks: folder of networks; None if none was given, which is enough to draw `known`.
        data_dir: folder that holds the data sets.
        device: where to measure.
        n: images.
        only: words that choose among the figure's networks; none: all.
        progress: show bars where standard error is a terminal.
        known: what an earlier run measured of the same figure with the same n.
        save: writes everything measured so far; call it as you measure, so that a stopped run can
            continue.
    """

    n: int
    only: tuple[str, ...] = ()
    progress: bool = True
    known: Results = field(default_factory=Results)
    save: Callable[[Results], None] = lambda results: None


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        name: such as "fig3".
        title: what it shows, one line.
        needs: the networks and data that it is measured with, in words.
        minutes: about how long it takes on two CPU cores, without training.
        networks: those that it takes, so that missing ones can be trained.
        measure: measures what `setting.known` does not hold. A run that takes more than a minute
            calls `setting.save` as it goes.
        draw: makes the picture from the results. It imports matplotlib itself.
        columns: the keys of the rows that the command prints as a table.
        n: images by default.
        alternatives: whether it is measured with only one of its networks, the first chosen.
    """

    name: str
    title: str
    needs: str
    minutes: float
    networks: tuple[Network, ...]
    measure: Callable[[Setting], Results]
    draw: Callable[[Results], Picture]
    columns: tuple[str, ...]
    n: int = 200
    alternatives: bool = False

    def chosen(self, only: Sequence[str] = ()) -> list[Network]:
        """The networks that `only` chooses.

        Raises:
            InputError: it chooses none.
        """
        return choose(self.networks, lambda network: network.words, only, self.name, self.needs)

    def needed(self, only: Sequence[str] = ()) -> list[Network]:
        """The networks that it is measured with where `only` is given.

        Raises:
            InputError: `only` chooses none.
        """
        return self.chosen(only)[: 1 if self.alternatives else None]
