"""One door to all data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import require_whole
from . import cifar10, digits, imagefolder, mnist
from .dataset import ImageData

Split = Literal["train", "test"]
NAMES = ("digits", "mnist", "cifar10", "imagefolder", "restricted_imagenet")
SPLITS: tuple[Split, ...] = ("train", "test")
_LAYOUTS = {
    "mnist": mnist.LAYOUT,
    "cifar10": cifar10.LAYOUT,
    "imagefolder": imagefolder.LAYOUT,
    "restricted_imagenet": f"{imagefolder.LAYOUT}, or a folder restricted_imagenet* that does",
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
        root: the folder that holds the data, or several data sets; digits needs none. An
            imagefolder is the folder itself. A split written in its place is refused.
        split: "train" or "test".
        device: where images and labels are put.
        size: resize to this height and width; by default 224 for folders of images, and the
            images' own size (28 for digits) otherwise.
        allow_partial: cifar10 only: serve a split of which some files are missing.

    Raises:
        InputError: unknown name or split, a folder that is not there or does not hold the data
            (the error says what it should hold), missing or damaged files, no such device.
    """
    if name not in NAMES:
        raise InputError(f"The data set must be one of {', '.join(NAMES)}, got {name!r}.")
    if split not in SPLITS:
        raise InputError(f"The split must be train or test, got {split!r}.")
    if isinstance(root, str) and root in SPLITS and (name == "digits" or not Path(root).is_dir()):
        raise InputError(
            f"The second argument is the folder of the data, got {root!r}; "
            f"for the split write split={root!r}."
        )
    if size is not None and require_whole("The size", size) < 1:
        raise InputError(f"The size must be at least 1 pixel, got {size}.")
    device = usable_device(device)
    data = _read(name, root, split, size, allow_partial)
    return (data if size is None else data.resized(size)).to(device)


def _read(
    name: str, root: str | Path | None, split: Split, size: int | None, allow_partial: bool
) -> ImageData:
    if name == "digits":
        return digits.read(split)
    folder = _folder(name, root)
    if name == "mnist":
        return mnist.read(folder, split)
    if name == "cifar10":
        return cifar10.read(folder, split, allow_partial)
    if name == "imagefolder":
        return imagefolder.read(folder, split, size or 224, name=name)
    folder = imagefolder.own_folder(folder, name)
    return imagefolder.read(folder, split, size or 224, imagefolder.RESTRICTED_IMAGENET, name)


def _folder(name: str, root: str | Path | None) -> Path:
    """The folder that holds a data set, if there is one."""
    if root is None:
        raise InputError(
            f"{name} needs the folder that holds it, and none was given: it should hold "
            f"{_LAYOUTS[name]}."
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {root}; {name} is read from a folder that holds {_LAYOUTS[name]}."
        )
    return folder
