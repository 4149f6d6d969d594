"""Data sets that torchvision reads: small images, held in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._utils.errors import InputError
from .dataset import ImageData, from_arrays

_BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}


class Set(NamedTuple):
    """A data set: torchvision's name, how it calls the splits, and what its folder holds."""

    name: str
    splits: dict[str, dict[str, Any]]
    layout: str


SETS = {
    "fashionmnist": Set("FashionMNIST", _BY_TRAIN, "FashionMNIST/raw/ with four idx files"),
    "kmnist": Set("KMNIST", _BY_TRAIN, "KMNIST/raw/ with four idx files"),
    "svhn": Set("SVHN", _BY_SPLIT, "train_32x32.mat and test_32x32.mat"),
    "stl10": Set("STL10", _BY_SPLIT, "stl10_binary/"),
    "usps": Set("USPS", _BY_TRAIN, "usps.bz2 and usps.t.bz2"),
}
"""Our name -> the data set."""

# Those that fastinterp reads itself, from the files that torchvision downloads.
DOWNLOADS = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def read(name: str, root: Path, split: str, download: bool) -> ImageData:
    """A split of a data set of `SETS`.

    Raises:
        InputError: torchvision does not find the files, which it names, or cannot read them.
    """
    found = _call(name, SETS[name].name, root, download, **SETS[name].splits[split])
    images, labels = np.asarray(found.data), np.asarray(getattr(found, "labels", None))
    if labels.dtype == object:
        labels = np.asarray(found.targets)
    if images.ndim == 4 and images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    count = int(labels.max()) + 1 if len(labels) else 0
    classes = getattr(found, "classes", [str(number) for number in range(max(count, 10))])
    return from_arrays(images, labels, classes, name)


def fetch(name: str, root: Path) -> None:
    """Download a data set of `DOWNLOADS`, unless its files are there."""
    _call(name, DOWNLOADS[name], root, True)


def _call(name: str, theirs: str, root: Path, download: bool, **split: Any) -> Any:
    from torchvision import datasets

    make: Callable[..., Any] = getattr(datasets, theirs)
    try:
        return make(str(root), download=download, **split)
    except ImportError as error:
        raise InputError(f"torchvision cannot read {name}: {error}.") from error
    except Exception as error:  # a download or a damaged file can raise anything
        reason = " ".join(str(error).split()).split(" You can use download=True")[0].rstrip(".")
        advice = (
            "check the network, or get the files yourself"
            if download
            else "download them by download=True (--download on the command line)"
        )
        layout = f", expected {SETS[name].layout}" if name in SETS else ""
        raise InputError(
            f"torchvision does not find its {theirs} in {root}{layout}: {reason}; {advice}."
        ) from error
