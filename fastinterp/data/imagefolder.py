"""Images in one folder for each class, such as a restricted ImageNet."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .._utils.errors import InputError
from .._utils.files import require_memory, usable_file
from .dataset import ImageData

LAYOUT = (
    "a folder of images for each class, in test/ (or val/) and train/ or, to test only, in itself"
)
# The classes of the paper's restricted ImageNet, in the order of the released network's outputs,
# and the positions of their folders among the 1,000 of ImageNet sorted by name, both ends included.
RESTRICTED_IMAGENET = {
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
# Pillow knows many more, and starts Ghostscript for some.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
# The last two are refused, as files that are left out would not be missed.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_WNID = re.compile(r"n\d{8}")


def read(
    root: Path,
    split: str,
    size: int = 224,
    classes: Sequence[str] | None = None,
    name: str = "imagefolder",
) -> ImageData:
    """All images of a split as RGB [N, 3, size, size]; each whole picture is squeezed into that.

    Args:
        root: holds train/ and test/ (or val/) with a folder for each class. Class folders directly
            in `root` are a test split.
        split: "train" or "test".
        size: height and width.
        classes: names of the folders in the order of their labels; by default all, sorted. For the
            classes of `RESTRICTED_IMAGENET` the folders may also be ImageNet's own 1,000.
        name: of the data.

    Raises:
        InputError: a class folder is missing or has no images, an image is damaged, or the images
            do not fit into memory.
    """
    found = find_samples(root, split, classes)
    require_memory(
        len(found.files) * 3 * size * size,
        f"{found.folder}, which holds {len(found.files)} images, at {size}x{size} pixels",
        "use fewer images or a smaller size, or read them batch by batch with data.stream",
    )
    images = torch.empty(len(found.files), 3, size, size, dtype=torch.uint8)
    for image, file in zip(images, found.files, strict=True):
        image.copy_(squeeze(read_rgb(Path(file)), size))
    return ImageData(images, found.labels, found.classes, name)


class Samples(NamedTuple):
    """The images of a split: their files [N], labels int64 [N] and the names of the classes."""

    folder: Path
    files: list[str]
    labels: torch.Tensor
    classes: tuple[str, ...]


def find_samples(root: Path, split: str, classes: Sequence[str] | None = None) -> Samples:
    """The images of a split, none of which is opened; see `read`."""
    folder = _split_folder(root, split)
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    order = tuple(classes or found)
    labels_of = _labels_of_folders(folder, order, found)
    samples = [
        (str(path), labels_of[name]) for name in sorted(labels_of) for path in _files(folder / name)
    ]
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    empty = [order[label] for label in set(range(len(order))) - set(labels.tolist())]
    if empty:
        raise InputError(
            f"{folder} has no images in the class folder(s) {', '.join(empty)}; add images or "
            "remove the folder(s)."
        )
    return Samples(folder, [file for file, _ in samples], labels, order)


def find_dataset(root: Path, name: str) -> Path:
    """The folder of a data set: `root` itself if it holds a split; else NAME in it, or the only
    folder in it whose name begins so; else `root`."""
    if _splits(root):
        return root
    if (root / name).is_dir():
        return root / name
    found = [path for path in root.glob(f"{name}*") if path.is_dir()]
    return found[0] if len(found) == 1 else root


def _splits(root: Path) -> dict[str, Path]:
    """The folders train, test and val that are there and hold folders."""
    folders = {part: root / part for part in ("train", "test", "val")}
    return {
        part: folder
        for part, folder in folders.items()
        if folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
    }


def _split_folder(root: Path, split: str) -> Path:
    """The folder that holds the class folders of a split."""
    found = _splits(root)
    parts = ("train",) if split == "train" else ("test", "val")
    for part in parts:
        if part in found:
            return found[part]
    if split == "train" or found:
        raise InputError(
            f"{root} has no {split} split: expected class folders in "
            f"{' or '.join(str(root / part) for part in parts)}."
        )
    return root


def _labels_of_folders(folder: Path, classes: tuple[str, ...], found: list[str]) -> dict[str, int]:
    """The label of each folder that is read."""
    if not found:
        raise InputError(f"{folder} holds no class folders: expected {LAYOUT}.")
    if classes == tuple(RESTRICTED_IMAGENET) and all(_WNID.fullmatch(name) for name in found):
        if len(found) != 1000:
            raise InputError(
                f"{folder} holds {len(found)} of ImageNet's folders, but the classes are found by "
                "position among all 1,000; add the missing folders, which may be empty."
            )
        return {
            wnid: label
            for label, (first, last) in enumerate(RESTRICTED_IMAGENET.values())
            for wnid in found[first : last + 1]
        }
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(f"{folder} lacks the class folder(s) {', '.join(missing)}; add them.")
    return {name: label for label, name in enumerate(classes)}


def _files(folder: Path) -> list[Path]:
    """The images in a class folder and its subfolders, in order. Links to folders are followed, but
    each folder is read once, and none that holds the class folder itself."""
    seen, walked = set(folder.resolve().parents), []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders.sort()
        walked += [(place, name) for name in names if name.lower().endswith(SUFFIXES)]
    return [Path(place, name) for place, name in sorted(walked)]


def read_rgb(path: Path) -> Image.Image:
    """An image file, decoded, with 8 bits a colour.

    Raises:
        InputError: it is no image, is damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # over 90 megapixels
            with Image.open(usable_file(path), formats=FORMATS) as image:
                return _as_rgb(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"Cannot read the image {path}: it is damaged, or none of {', '.join(FORMATS)}; remove "
            "or replace it."
        ) from error
    except Exception as error:  # a damaged image can raise anything
        raise InputError(f"Cannot read the image {path}: {error}; remove or replace it.") from error


def squeeze(image: Image.Image, size: int) -> torch.Tensor:
    """The whole picture, squeezed into uint8 [3, size, size]."""
    resized = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    """8 bits a colour. What Pillow would cut to them, or clamp, is scaled or refused."""
    if image.format == "PNG" and image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of the kind {image.mode}, not of 8 bits")
    return image.convert("RGB")
