"""`load`, for all data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import require_count, require_known_name, require_one_of
from . import cifar10, digits, imagefolder, mnist
from .dataset import ImageData

Split = Literal["train", "test"]
NAMES = ("digits", "mnist", "cifar10", "imagefolder", "restricted_imagenet")
SPLITS: tuple[Split, ...] = ("train", "test")
_LAYOUTS = {
    "mnist": mnist.LAYOUT,
    "cifar10": cifar10.LAYOUT,
    "imagefolder": imagefolder.LAYOUT,
    "restricted_imagenet": f"{imagefolder.LAYOUT}, or a folder restricted_imagenet* with these",
}


def load(
    name: str,
    root: str | Path | None = None,
    split: Split = "test",
    device: str | torch.device = "cpu",
    size: int | None = None,
    *,
    allow_partial: bool = False,
) -> ImageData:
    """Load a split of a data set into memory, as uint8, on a device. Nothing is downloaded.

    Args:
        name: digits (built in), mnist, cifar10, imagefolder or restricted_imagenet.
        root: the folder that holds the data, or several data sets; digits needs none. For
            imagefolder it is the folder of the images itself.
        split: "train" or "test".
        device: where to put images and labels.
        size: resize to this height and width; by default 224 for folders of images, and the
            images' own size (28 for digits) otherwise.
        allow_partial: cifar10 only: load a split of which some files are missing.

    Raises:
        InputError: the name, split, size or device is unknown, or the folder does not hold the
            data (the error says what it should hold), or files are missing or damaged.
    """
    require_known_name("data set", name, NAMES)
    require_one_of("The split", split, SPLITS)
    if isinstance(root, str) and root in SPLITS and (name == "digits" or not Path(root).is_dir()):
        raise InputError(
            f"The second argument is the folder of the data, got {root!r}; "
            f"for the split pass split={root!r}."
        )
    if size is not None:
        size = require_count("The size", size)
    device = usable_device(device)
    data = _read(name, root, split, size or 224, allow_partial)
    return (data if size is None else data.resized(size)).to(device)


def _read(
    name: str, root: str | Path | None, split: Split, size: int, allow_partial: bool
) -> ImageData:
    if name == "digits":
        return digits.read(split)
    if root is None:
        raise InputError(
            f"{name} needs the folder that holds it (root, or --data-dir on the command line): "
            f"expected {_LAYOUTS[name]}."
        )
    try:
        folder = Path(root).expanduser()
        is_folder = folder.is_dir()
    except (RuntimeError, OSError):  # the home of nobody; a name that is too long
        is_folder = False
    if not is_folder:
        raise InputError(
            f"There is no folder {root}; {name} needs a folder that holds {_LAYOUTS[name]}."
        )
    if name == "mnist":
        return mnist.read(folder, split)
    if name == "cifar10":
        return cifar10.read(folder, split, allow_partial)
    if name == "imagefolder":
        return imagefolder.read(folder, split, size)
    folder = imagefolder.find_dataset(folder, name)
    return imagefolder.read(folder, split, size, tuple(imagefolder.RESTRICTED_IMAGENET), name)
