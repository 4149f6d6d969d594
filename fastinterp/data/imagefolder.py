"""Images in one folder a class, such as a restricted ImageNet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .._utils.errors import InputError
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
# Places among ImageNet's 1,000 folders in the order of their names; both ends count.
IMAGENET_RANGES = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}
_WNID = re.compile(r"n\d{8}")
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
        classes: the folders' names in the order of their labels; by default all, sorted. For
            `RESTRICTED_IMAGENET` the folders may also be ImageNet's own 1,000.
        name: what the data is called.

    Raises:
        InputError: no class folders, one that is missing or without images, a damaged image, or
            more images than the memory holds.
    """
    from torchvision.datasets import ImageFolder

    folder = _split_folder(root, split)
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    order = tuple(classes or found)
    label_of = _labels_of_folders(folder, order, found)

    class Ordered(ImageFolder):  # type: ignore[misc]
        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            return sorted(label_of), label_of

    samples = Ordered(folder, allow_empty=True).samples
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    empty = [order[label] for label in set(range(len(order))) - set(labels.tolist())]
    if empty:
        raise InputError(f"{folder} has no images in the class folder(s) {', '.join(empty)}.")
    _require_memory(folder, len(samples), size)
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


def _labels_of_folders(folder: Path, classes: tuple[str, ...], found: list[str]) -> dict[str, int]:
    """Which label the images of a folder have, for the folders that are read."""
    if not found:
        raise InputError(f"{folder} holds no class folders: expected {LAYOUT}.")
    if classes == RESTRICTED_IMAGENET and all(_WNID.fullmatch(name) for name in found):
        return _restricted(folder, found)
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(f"{folder} lacks the class folder(s) {', '.join(missing)}.")
    return {name: label for label, name in enumerate(classes)}


def _restricted(folder: Path, wnids: list[str]) -> dict[str, int]:
    """ImageNet's folders that belong to a restricted class; their places count among all 1,000."""
    if len(wnids) != 1000:
        raise InputError(
            f"{folder} holds {len(wnids)} of ImageNet's folders; which of them are dogs, cats and "
            "so on is known by their places among all 1,000, so keep all (empty ones will do)."
        )
    ranges = [IMAGENET_RANGES[name] for name in RESTRICTED_IMAGENET]
    return {
        wnid: label
        for label, (first, last) in enumerate(ranges)
        for wnid in wnids[first : last + 1]
    }


def _require_memory(folder: Path, count: int, size: int) -> None:
    """Raise if the pixels do not fit into memory, before an hour is spent on reading them."""
    needed, free = count * 3 * size * size, _free_memory()
    if free is not None and needed > free:
        raise InputError(
            f"the {count} images of {folder} take {needed / 1e9:.1f} GB of memory at {size}x{size} "
            f"pixels, and {free / 1e9:.1f} GB are free; keep fewer images there, or ask for a "
            "smaller size."
        )


def _free_memory() -> int | None:
    """Bytes that can be had, where Linux says so."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if found is None else int(found[1]) * 1024


def _read_image(path: str, size: int) -> torch.Tensor:
    """An image file -> uint8 [3, size, size]."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"Cannot read the image {path}: {error}; remove or replace it.") from error
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
