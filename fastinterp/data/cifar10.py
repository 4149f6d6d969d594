"""CIFAR-10 from its official files, in the Python or the binary version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.errors import InputError
from .._utils.files import usable_file
from .._utils.unpickle import read_pickle
from .dataset import ImageData, from_arrays
from .layout import find_files

LAYOUT = (
    "cifar-10-batches-py/ with data_batch_1 to data_batch_5 and test_batch, or "
    "cifar-10-batches-bin/ with the same names ending in .bin"
)
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_PIXELS = 3 * 32 * 32

Batch = tuple[NDArray[np.uint8], NDArray[Any]]  # images [N, 3072], labels [N]


def read(root: Path, split: str, allow_partial: bool = False) -> ImageData:
    """Images [N, 3, 32, 32] of a split. `root` holds one of the folders of `LAYOUT`, or is one."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    places = [
        [folder / f"{name}{suffix}" for name in names]
        for folders in ((root / "cifar-10-batches-py", root / "cifar-10-batches-bin"), (root, root))
        for folder, suffix in zip(folders, ("", ".bin"), strict=True)
    ]
    what = f"the {split} split of cifar10"
    files = find_files(what, root, places, LAYOUT, allow_partial=allow_partial)
    batches = [_read_binary(f) if f.suffix == ".bin" else _read_pickled(f) for f in files]
    images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return from_arrays(images, labels, CLASSES, "cifar10")


def _read_binary(path: Path) -> Batch:
    """A file of records: one byte for the label, 3072 for the pixels."""
    data = np.fromfile(usable_file(path), np.uint8)
    if len(data) == 0 or len(data) % (1 + _PIXELS):
        raise InputError(
            f"{path} is damaged: its size, {len(data)} bytes, is not a multiple of {1 + _PIXELS}; "
            "get the file again."
        )
    records = data.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _read_pickled(path: Path) -> Batch:
    """A pickled dict with `data` (uint8 [N, 3072]) and `labels` (a list of N numbers)."""
    content = read_pickle(path)
    if isinstance(content, dict):
        named = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in content.items()}
        images, labels = named.get("data"), named.get("labels")
        if isinstance(labels, list) and all(type(label) is int for label in labels):
            labels = np.array(labels)
        if (
            isinstance(images, np.ndarray)
            and isinstance(labels, np.ndarray)
            and images.dtype == np.uint8
            and labels.ndim == 1
            and images.shape == (*labels.shape, _PIXELS)
            and np.issubdtype(labels.dtype, np.integer)
        ):
            return images, labels
    raise InputError(
        f"{path} is not a CIFAR-10 batch: expected a pickled dict with data (uint8 [N, {_PIXELS}]) "
        "and labels (N numbers), as in the files of cifar-10-python.tar.gz."
    )
