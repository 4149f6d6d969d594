"""Finding the network of a row in a folder of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from .. import models
from .._utils.errors import InputError

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
# Where a short recipe stands in for the paper's.
_QUICK = {("mnist", "small"): "mnist-quick"}


class Network(NamedTuple):
    """A network of the paper: its data set, architecture, and how it was trained.

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
        """A recipe that is short enough for a CPU, where there is one."""
        prefix = _QUICK.get((self.dataset, self.model))
        return None if prefix is None else f"{prefix}-{self.method}"

    @property
    def words(self) -> tuple[str, str, str, str]:
        """What it may be chosen by: data set, architecture, method, and a gamma of its own."""
        gamma = "" if self.gamma is None else f"{self.gamma:g}"
        return self.dataset, self.model, self.method, gamma

    def run(self, recipe: str) -> str:
        """The name of the folder in which a run of a recipe leaves this network."""
        return recipe if self.gamma is None else f"{recipe}-gamma-{self.gamma:g}"

    def __str__(self) -> str:
        return self.run(self.recipe)


def find_network(folder: Path, network: Network, scales: Sequence[Scale] = SCALES) -> Path | None:
    """The file of one network, or None.

    A run of our own comes first: `<dataset>-<model>-<method>/model.safetensors` (the names of the
    recipes, so `fastinterp train` leaves them in place) or the same as one file; then a released
    one, `<dataset>_<model>_<method>_<epochs>.pkl`; then a run of the short recipe. A gamma other
    than the method's own stands at the end of a run's name: `mnist-small-int-gamma-0.1`.

    Args:
        folder: where to look.
        network: which one.
        scales: "paper" for the paper's settings, "quick" for those of the short recipe.

    Raises:
        InputError: the folder is not there.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder} with networks; name one that holds the released .pkl "
            "files or runs of `fastinterp train`."
        )
    found: list[Path] = []
    if "paper" in scales:
        found += [*_runs(folder, network.run(network.recipe)), *_released(folder, network)]
    if "quick" in scales and network.quick_recipe is not None:
        found += _runs(folder, network.run(network.quick_recipe))
    return found[0] if found else None


def require_any(folder: Path, networks: Sequence[Network]) -> None:
    """Raise unless a folder holds at least one of the networks.

    Raises:
        InputError: it holds none; the message says what the first would be called.
    """
    if any(find_network(folder, network) is not None for network in networks):
        return
    raise InputError(
        f"{folder} holds none of the networks that this takes: neither released .pkl files nor "
        f"runs such as {networks[0]}/model.safetensors; name another folder, or let --train "
        "make them."
    )


def network_name(path: Path) -> str:
    """How a network's file is called in results: a run by its folder."""
    return f"{path.parent.name}/{path.name}" if path.name == "model.safetensors" else path.name


def recipe_of(path: Path) -> str | None:
    """The recipe that a network was trained by, where its file says so."""
    name = models.info(path).get("recipe", {}).get("name")
    return None if name is None else str(name)


def _runs(folder: Path, name: str) -> list[Path]:
    paths = (folder / name / "model.safetensors", folder / f"{name}.safetensors")
    return [path for path in paths if path.is_file()]


def _released(folder: Path, network: Network) -> list[Path]:
    """The released files of a network, the longest-trained one first."""
    if network.gamma is not None:
        return []
    dataset, model = _DATASETS.get(network.dataset), _MODELS.get(network.model)
    stem = f"{dataset}_{model}_{_METHODS.get(network.method)}"
    found = folder.glob(f"{stem}_[0-9]*.pkl")
    return sorted(found, key=lambda path: (len(path.stem), path.stem), reverse=True)
