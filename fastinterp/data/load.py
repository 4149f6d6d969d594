"""`load` and `stream`, for all data sets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import require_count, require_known_name, require_one_of
from . import cifar10, digits, imagefolder, mnist, torchvision_sets
from .dataset import ImageData
from .stream import ImageStream, Transform, Usual, usual_transform

Split = Literal["train", "test"]
FOLDERS = ("imagefolder", "imagenet", "restricted_imagenet")
NAMES = ("digits", "mnist", "cifar10", "cifar100", *torchvision_sets.SETS, *FOLDERS)
SPLITS: tuple[Split, ...] = ("train", "test")
_LAYOUTS = {
    "mnist": mnist.LAYOUT,
    "cifar10": cifar10.LAYOUT,
    "cifar100": cifar10.LAYOUT_100,
    "imagefolder": imagefolder.LAYOUT,
    "imagenet": imagefolder.LAYOUT,
    "restricted_imagenet": f"{imagefolder.LAYOUT}, or a folder restricted_imagenet* with these",
    **{name: each.layout for name, each in torchvision_sets.SETS.items()},
}


def load(
    name: str,
    root: str | Path | None = None,
    split: Split = "test",
    device: str | torch.device = "cpu",
    size: int | None = None,
    *,
    allow_partial: bool = False,
    download: bool = False,
) -> ImageData:
    """Load a split of a data set into memory, as uint8, on a device.

    Args:
        name: one of `NAMES`: digits (built in), mnist, cifar10, a folder of images (imagefolder,
            imagenet, restricted_imagenet), or a data set of torchvision by its name in any case,
            such as FashionMNIST, SVHN or CIFAR100.
        root: the folder that holds the data, or several data sets; digits needs none. For
            imagefolder it is the folder of the images itself.
        split: "train" or "test".
        device: where to put images and labels.
        size: resize to this height and width; by default 224 for folders of images, and the
            images' own size (28 for digits) otherwise.
        allow_partial: cifar10 only: load a split of which some files are missing.
        download: let torchvision download the data into `root` if they are missing; nothing is
            downloaded otherwise.

    Raises:
        InputError: the name, split, size or device is unknown, or the folder does not hold the
            data (the error says what it should hold), or files are missing or damaged.
    """
    name = known_name(name)
    _require_split(name, root, split)
    if size is not None:
        size = require_count("The size", size)
    device = usable_device(device)
    data = _read(name, root, split, size or 224, allow_partial, download)
    return (data if size is None else data.resized(size)).to(device)


def stream(
    name: str,
    root: str | Path | None,
    split: Split = "test",
    transform: Transform | Usual = "whole",
    workers: int = 0,
    *,
    size: int = 224,
) -> ImageStream:
    """A split of a folder of images, read batch by batch; memory never holds all of it.

    Args:
        name: imagefolder, imagenet or restricted_imagenet, in the layout of torchvision's
            ImageFolder: a folder for each class, in train/ and test/ or val/.
        root: the folder that holds the data.
        split: "train" or "test".
        transform: "whole" squeezes each picture into size x size, which gives the pixels of `load`;
            "center-crop" and "random-crop" are ImageNet's usual ones to test and to train; or a
            function from a PIL image to a tensor [C, H, W], uint8 or in [0, 1], such as a Compose
            of torchvision.transforms.v2 that ends with PILToTensor().
        workers: processes that read and transform images; 0 reads in this process.
        size: height and width for a transform by name.

    Raises:
        InputError: an argument is unknown, or the folder does not hold the data.
    """
    name = known_name(name)
    require_one_of("A data set that is streamed", name, FOLDERS)
    _require_split(name, root, split)
    if not callable(transform):
        transform = usual_transform(transform, require_count("size", size))
    folder, classes = _folder_of(name, _require_root(name, root))
    found = imagefolder.find_samples(folder, split, classes)
    workers = require_count("workers", workers, 0)
    return ImageStream(found.files, found.labels, found.classes, transform, name, workers)


def known_name(name: str) -> str:
    """A data set's name as in `NAMES`: CIFAR-100 is cifar100.

    Raises:
        InputError: it is none.
    """
    plain = str(name).lower()
    if plain not in NAMES and plain.replace("-", "") in NAMES:
        plain = plain.replace("-", "")
    return plain if plain in NAMES else require_known_name("data set", name, NAMES)


def _require_split(name: str, root: str | Path | None, split: str) -> None:
    require_one_of("The split", split, SPLITS)
    if isinstance(root, str) and root in SPLITS and (name == "digits" or not Path(root).is_dir()):
        raise InputError(
            f"The second argument is the folder of the data, got {root!r}; "
            f"for the split pass split={root!r}."
        )


def _require_root(name: str, root: str | Path | None) -> Path:
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
    return folder


def _read(
    name: str, root: str | Path | None, split: Split, size: int, partial: bool, download: bool
) -> ImageData:
    if download and (name == "digits" or name in FOLDERS):
        raise InputError(f"{name} cannot be downloaded; leave download out.")
    if name == "digits":
        return digits.read(split)
    if download and root is not None:
        Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    folder = _require_root(name, root)
    if name in torchvision_sets.SETS:
        return torchvision_sets.read(name, folder, split, download)
    if download:
        with suppress(InputError):  # the files may lie where torchvision would not look
            return _read(name, root, split, size, partial, False)
        torchvision_sets.fetch(name, folder)
    if name == "mnist":
        return mnist.read(folder, split)
    if name == "cifar10":
        return cifar10.read(folder, split, partial)
    if name == "cifar100":
        return cifar10.read_100(folder, split)
    folder, classes = _folder_of(name, folder)
    return imagefolder.read(folder, split, size, classes, name)


def _folder_of(name: str, folder: Path) -> tuple[Path, tuple[str, ...] | None]:
    """The folder of images, and its classes if they have an order of their own."""
    if name == "imagefolder":
        return folder, None
    restricted = name == "restricted_imagenet"
    classes = tuple(imagefolder.RESTRICTED_IMAGENET) if restricted else None
    return imagefolder.find_dataset(folder, name), classes
