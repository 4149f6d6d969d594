"""CIFAR-10 and CIFAR-100 from their official files, in the Python or the binary version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.errors import InputError
from .._utils.files import read_file, usable_file
from .._utils.unpickle import read_pickle
from .dataset import ImageData, from_arrays
from .layout import find_files

LAYOUT = (
    "cifar-10-batches-py/ with data_batch_1 to data_batch_5 and test_batch, or "
    "cifar-10-batches-bin/ with the same names ending in .bin"
)
LAYOUT_100 = (
    "cifar-100-python/ with train, test and meta, or cifar-100-binary/ with train.bin, test.bin "
    "and fine_label_names.txt"
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


def read_100(root: Path, split: str) -> ImageData:
    """Images [N, 3, 32, 32] of a split of CIFAR-100, with its 100 fine labels."""
    places = [
        [folder / name, folder / names]
        for folders in ((root / "cifar-100-python", root / "cifar-100-binary"), (root, root))
        for folder, name, names in zip(
            folders, (split, f"{split}.bin"), ("meta", "fine_label_names.txt"), strict=True
        )
    ]
    what = f"the {split} split of cifar100"
    file, meta = find_files(what, root, places, LAYOUT_100)
    binary = file.suffix == ".bin"
    images, labels = _read_binary(file, 2) if binary else _read_pickled(file, "fine_labels")
    if binary:
        classes = read_file(meta).decode("utf-8", "replace").split()
    else:
        names = _named(read_pickle(meta)).get("fine_label_names")
        classes = [_text(name) for name in names] if isinstance(names, list) else []
    if len(classes) != 100:
        raise InputError(
            f"{meta} does not hold the names of CIFAR-100's 100 classes; get the file again."
        )
    return from_arrays(images.reshape(-1, 3, 32, 32), labels, classes, "cifar100")


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _named(content: object) -> dict[str, Any]:
    """A pickled dict with text as keys; empty for anything else."""
    return {_text(k): v for k, v in content.items()} if isinstance(content, dict) else {}


def _read_binary(path: Path, labels: int = 1) -> Batch:
    """A file of records: bytes for labels, the last of which counts, and 3072 for the pixels."""
    data = np.fromfile(usable_file(path), np.uint8)
    record = labels + _PIXELS
    if len(data) == 0 or len(data) % record:
        raise InputError(
            f"{path} is damaged: its size, {len(data)} bytes, is not a multiple of {record}; "
            "get the file again."
        )
    records = data.reshape(-1, record)
    return records[:, labels:], records[:, labels - 1]


def _read_pickled(path: Path, key: str = "labels") -> Batch:
    """A pickled dict with `data` (uint8 [N, 3072]) and labels (a list of N numbers)."""
    named = _named(read_pickle(path))
    if named:
        images, labels = named.get("data"), named.get(key)
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
        f"{path} is not a batch of CIFAR: expected a pickled dict with data (uint8 [N, {_PIXELS}]) "
        f"and {key} (N numbers), as in the files of the Python version."
    )
