"""MNIST from its official idx files, in the folders of torchvision."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._utils.errors import InputError
from .._utils.files import usable_file
from .dataset import ImageData, from_arrays
from .layout import find_files

LAYOUT = (
    "MNIST/raw/ with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte, plain or with .gz"
)
_SIDE = 28
_DEFLATE = 1032  # bytes that gzip can make of one, at most


def read(root: Path, split: str) -> ImageData:
    """Images [N, 1, 28, 28] of a split. `root` holds MNIST/, or is MNIST/ or the files' folder."""
    prefix = "train" if split == "train" else "t10k"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    folders = (root / "MNIST" / "raw", root / "raw", root)
    places = [[folder / name for name in names] for folder in folders]
    image_file, label_file = find_files(
        f"the {split} split of mnist", root, places, LAYOUT, zipped=True
    )
    images, labels = _read_idx(image_file, dims=3), _read_idx(label_file, dims=1)
    if len(images) != len(labels):
        raise InputError(
            f"{image_file} holds {len(images)} images, but {label_file} holds {len(labels)} "
            "labels; get both files again."
        )
    return from_arrays(images, labels, "0123456789", "mnist")


def _read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """An idx file of bytes, gzipped or not: magic number 0x0000 08 dims, sizes, data.

    No more is read than the header declares, and no more may be declared than fits: a small
    archive can hold gigabytes.
    """
    zipped = path.suffix == ".gz"
    largest = usable_file(path).stat().st_size * (_DEFLATE if zipped else 1)
    size = 4 * (1 + dims)
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(size)
            if len(head) < size or head[:4] != bytes((0, 0, 8, dims)):
                raise InputError(
                    f"{path} is not an idx file of bytes with {dims} dimension(s): it begins with "
                    f"0x{head[:4].hex()} instead of 0x000008{dims:02x}; get the file again."
                )
            shape = struct.unpack(f">{dims}I", head[4:])
            declared = math.prod(shape)
            data = file.read(declared + 1) if declared <= largest else b""
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read {path}: {error}; get the file again.") from error
    if len(data) != declared:
        held = f"more than {declared}" if len(data) > declared else "fewer"
        raise InputError(
            f"{path} is damaged: its header says {' x '.join(map(str, shape))} bytes, "
            f"but {held} follow; get the file again."
        )
    if shape[1:] not in ((), (_SIDE, _SIDE)):
        raise InputError(
            f"{path} holds images of {shape[1]} x {shape[2]} pixels, but those of MNIST have "
            f"{_SIDE} x {_SIDE}; get the file again."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
