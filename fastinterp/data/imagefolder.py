"""Images in one folder a class, such as a restricted ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from .dataset import ImageData

LAYOUT = (
    "a folder of images for each class, in test/ (or val/) and train/ or, to test only, in itself"
)
# In the order of the paper's restricted ImageNet, which is that of the released network's outputs.
RESTRICTED_IMAGENET = (
    "dog",
    "cat",
    "frog",
    "turtle",
    "bird",
    "primate",
    "fish",
    "crab",
    "insect",
)
_FOLDERS = {"train": ("train",), "test": ("test", "val")}


def read(
    root: Path,
    split: str,
    size: int = 224,
    classes: Sequence[str] | None = None,
    name: str = "imagefolder",
) -> ImageData:
    """All images of a split, resized to `size` x `size` pixels, RGB, held in memory whole.

    Args:
        root: holds train/ and test/ (or val/) with a folder a class in each. Class folders right in
            `root` are a test split.
        size: height and width; the whole picture is squeezed into them.
        classes: the folders' names in the order of their labels; by default all, sorted.
        name: what the data is called.

    Raises:
        InputError: no class folders, one that is missing or without images, or a damaged image.
    """
    from torchvision.datasets import ImageFolder

    folder = _split_folder(root, split)
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    order = tuple(classes or found)
    _require_classes(folder, order, found)

    class Ordered(ImageFolder):  # type: ignore[misc]
        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            return list(order), {name: label for label, name in enumerate(order)}

    samples = Ordered(folder, allow_empty=True).samples
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    empty = [order[label] for label in set(range(len(order))) - set(labels.tolist())]
    if empty:
        raise InputError(f"{folder} has no images in the class folder(s) {', '.join(empty)}.")
    images = torch.empty(len(samples), 3, size, size, dtype=torch.uint8)
    for image, (path, _) in zip(images, samples, strict=True):
        image.copy_(_read_image(path, size))
    return ImageData(images, labels, order, name)


def own_folder(root: Path, name: str) -> Path:
    """The folder of a data set below one that holds several: NAME, or the only one that begins so.

    `root` itself where it holds a split, or nothing that is called like the data set.
    """
    if any(_has_folders(root / part) for parts in _FOLDERS.values() for part in parts):
        return root
    if (root / name).is_dir():
        return root / name
    found = sorted(path for path in root.glob(f"{name}*") if path.is_dir())
    return found[0] if len(found) == 1 else root


def _split_folder(root: Path, split: str) -> Path:
    """The folder that holds the class folders of a split."""
    for part in _FOLDERS[split]:
        if _has_folders(root / part):
            return root / part
    others = any(_has_folders(root / part) for parts in _FOLDERS.values() for part in parts)
    if split == "train" or others:
        raise InputError(
            f"{root} has no {split} split: expected class folders in "
            f"{' or '.join(str(root / part) for part in _FOLDERS[split])}."
        )
    return root


def _has_folders(path: Path) -> bool:
    """Whether this is a split: a folder with folders in it, where a class has images."""
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


def _require_classes(folder: Path, classes: tuple[str, ...], found: list[str]) -> None:
    if not found:
        raise InputError(f"{folder} holds no class folders: expected {LAYOUT}.")
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(f"{folder} lacks the class folder(s) {', '.join(missing)}.")


def _read_image(path: str, size: int) -> torch.Tensor:
    """An image file -> uint8 [3, size, size]."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"Cannot read the image {path}: {error}; remove or replace it.") from error
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
