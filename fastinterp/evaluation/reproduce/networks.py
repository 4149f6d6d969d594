"""Finding the network of a row in a folder of networks."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError

# How the released files spell data sets, architectures and methods.
_DATASETS = {"mnist": "mnist", "cifar10": "cifar"}
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


def find_network(folder: Path, dataset: str, model: str, method: str) -> Path | None:
    """The file of one network, or None.

    A run of our own comes first: `<dataset>-<model>-<method>/model.safetensors` (the names of the
    recipes, so `fastinterp train` leaves them in place) or the same as one file; then a released
    one, `<dataset>_<model>_<method>_<epochs>.pkl`.

    Raises:
        InputError: the folder is not there.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder} with networks; name one that holds the released .pkl "
            "files or runs of `fastinterp train`."
        )
    recipe = f"{dataset}-{model}-{method}"
    for path in (folder / recipe / "model.safetensors", folder / f"{recipe}.safetensors"):
        if path.is_file():
            return path
    stem = f"{_DATASETS.get(dataset)}_{_MODELS.get(model)}_{_METHODS.get(method)}"
    released = sorted(folder.glob(f"{stem}_[0-9]*.pkl"))
    return released[-1] if released else None
