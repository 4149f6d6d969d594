"""The networks of the paper, and where a folder holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from .. import data, models
from .._utils.errors import InputError
from ..data import ImageData, ImageStream
from ..models.gap import GapClassifier

Scale = Literal["paper", "quick"]
SCALES: tuple[Scale, ...] = ("paper", "quick")

# How the released files spell data sets, architectures and methods.
_DATASETS = {"mnist": "mnist", "cifar10": "cifar", "restricted_imagenet": "restimagenet"}
_MODELS = {"small": "smallgap", "pool": "pool", "wresnet": "wresnet"}
_METHODS = {
    "normal": "normal",
    "adv": "adv",
    "trades": "trades",
    "ig-norm": "ig",
    "ig-norm-sum": "igsum",
    "int": "int",
    "int-adv": "intadv",
    "int-1-class": "intone",
}

Thing = TypeVar("Thing")


class Network(NamedTuple):
    """A network of the paper: its data set, architecture and training method.

    Attributes:
        dataset, model, method: as the recipes name them.
        gamma: weight of the regulariser; None: the method's own.
    """

    dataset: str
    model: str
    method: str
    gamma: float | None = None

    @property
    def recipe(self) -> str:
        """The recipe with the paper's settings."""
        return f"{self.dataset}-{self.model}-{self.method}"

    @property
    def quick_recipe(self) -> str | None:
        """The recipe that is short enough for a CPU; only MNIST Small has one."""
        return f"mnist-quick-{self.method}" if self[:2] == ("mnist", "small") else None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that choose it: data set, architecture, method, and its own gamma or ""."""
        return *self[:3], "" if self.gamma is None else f"{self.gamma:g}"

    def run(self, recipe: str) -> str:
        """The name of the folder into which a run of a recipe writes this network."""
        return recipe if self.gamma is None else f"{recipe}-gamma-{self.gamma:g}"

    def __str__(self) -> str:
        return self.run(self.recipe)


@dataclass(frozen=True)
class Sources:
    """Where networks and data sets are read from.

    Attributes:
        networks: folder of networks; None if none was given.
        data_dir: folder that holds the data sets.
        device: where to measure.
    """

    networks: Path | None
    data_dir: Path | None
    device: torch.device
    _loaded: dict[str, ImageData] = field(init=False, repr=False, default_factory=dict)

    def find(self, network: Network) -> Path | None:
        """The file of a network; None if it is missing, or no folder was given."""
        return None if self.networks is None else find_network(self.networks, network)

    def load(self, network: Network) -> GapClassifier:
        """A network on the device, in eval mode.

        Raises:
            InputError: it is missing.
        """
        path = self.find(network)
        if path is None:
            where = "" if self.networks is None else f" in {self.networks}"
            raise InputError(
                f"There is no network {network}{where}; name its folder with --networks, or train "
                "it with --train."
            )
        model = models.load(path, map_location=self.device)
        if not isinstance(model, GapClassifier):
            raise InputError(f"{path} holds none of the paper's networks; name another folder.")
        return model

    def images(self, dataset: str) -> ImageData | ImageStream:
        """The test split of a data set; loaded once, or read as it is needed."""
        if dataset in data.FOLDERS:
            return data.stream(dataset, self.data_dir, "test")
        if dataset not in self._loaded:
            self._loaded[dataset] = data.load(dataset, self.data_dir, "test", self.device)
        return self._loaded[dataset]


def find_network(folder: Path, network: Network, scales: Sequence[Scale] = SCALES) -> Path | None:
    """The file of one network, or None.

    The first of these that exists: a run of the paper's recipe,
    `<dataset>-<model>-<method>/model.safetensors` or the same as one file; a released file,
    `<dataset>_<model>_<method>_<epochs>.pkl`; a run of the short recipe. A gamma other than the
    method's own ends the name of a run: `mnist-small-int-gamma-0.1`.

    Args:
        folder: where to look.
        network: which one.
        scales: "paper" for the paper's settings, "quick" for those of the short recipe.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder} with networks; name one that holds released .pkl files "
            "or runs of `fastinterp train`."
        )
    found: list[Path] = []
    if "paper" in scales:
        found += [*_runs(folder, network.run(network.recipe)), *_released(folder, network)]
    if "quick" in scales and network.quick_recipe is not None:
        found += _runs(folder, network.run(network.quick_recipe))
    return found[0] if found else None


def network_name(path: Path) -> str:
    """The name of a network's file in results; a run is named by its folder."""
    return f"{path.parent.name}/{path.name}" if path.name == "model.safetensors" else path.name


def network_and_recipe(path: Path | None) -> dict[str, Any]:
    """For a row of results: the file's name, and the recipe that trained it if the file says so."""
    if path is None:
        return {"network": None, "recipe": None}
    recipe = models.info(path).get("recipe", {}).get("name")
    return {"network": network_name(path), "recipe": recipe}


def choose(
    things: Sequence[Thing],
    words: Callable[[Thing], tuple[str, ...]],
    only: Sequence[str],
    name: str,
    needs: str,
) -> list[Thing]:
    """The things that `only` chooses.

    Of each kind of word in `only`, such as data set or method, a thing must have one.

    Args:
        things: what there is.
        words: thing -> its words, one of each kind.
        only: words; none chooses everything.
        name, needs: of the table or figure, for the message.

    Raises:
        InputError: nothing fits, or there is a word that nothing has.
    """
    kinds = [set(kind) for kind in zip(*map(words, things), strict=True)]
    wanted = [kind & set(only) or kind for kind in kinds]
    chosen = [
        thing
        for thing in things
        if all(word in kind for word, kind in zip(words(thing), wanted, strict=True))
    ]
    if not chosen or not set(only) <= set().union(*kinds):
        raise InputError(
            f"{name} has nothing to do with {' '.join(only)}; it takes {needs}. Choose other words "
            "for --only."
        )
    return chosen


def _runs(folder: Path, name: str) -> list[Path]:
    paths = (folder / name / "model.safetensors", folder / f"{name}.safetensors")
    return [path for path in paths if path.is_file()]


def _released(folder: Path, network: Network) -> list[Path]:
    """The released files of a network, the longest-trained one first."""
    if network.gamma is not None:
        return []
    dataset, model = _DATASETS.get(network.dataset), _MODELS.get(network.model)
    found = folder.glob(f"{dataset}_{model}_{_METHODS.get(network.method)}_[0-9]*.pkl")
    return sorted(found, key=lambda path: (len(path.stem), path.stem), reverse=True)
