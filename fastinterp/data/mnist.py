"""MNIST from its official idx files, as torchvision lays them out."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.errors import InputError
from .dataset import ImageData, from_arrays
from .layout import Place, find_files

LAYOUT = (
    "MNIST/raw/ with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte, each as it is or with .gz"
)
_PREFIX = {"train": "train", "test": "t10k"}


def read(root: Path, split: str) -> ImageData:
    """A split of MNIST: [N, 1, 28, 28]. `root` is the folder that holds MNIST/, or MNIST/ itself,
    or the folder of the files.

    Raises:
        InputError: files are missing, damaged, or do not belong together.
    """
    prefix = _PREFIX[split]
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    folders = (root / "MNIST" / "raw", root / "raw", root)
    places = [Place(folder, names, ("", ".gz")) for folder in folders]
    image_file, label_file = find_files("mnist", root, split, places, LAYOUT)
    images, labels = read_idx(image_file, dims=3), read_idx(label_file, dims=1)
    if len(images) != len(labels):
        raise InputError(
            f"{image_file} holds {len(images)} images, but {label_file} {len(labels)} labels; "
            "they do not belong together."
        )
    return from_arrays(images, labels, [str(d) for d in range(10)], "mnist")


def read_idx(path: Path, dims: int) -> NDArray[Any]:
    """An idx file of bytes, gzipped or not: magic number 0x0000 08 dims, sizes, data.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read {path}: {error}; get the file again.") from error
    head = 4 * (1 + dims)
    if len(data) < head or data[:4] != bytes((0, 0, 8, dims)):
        raise InputError(
            f"{path} is not an idx file of bytes with {dims} dimension(s): it begins with "
            f"0x{data[:4].hex()} where 0x000008{dims:02x} was expected."
        )
    shape = struct.unpack(f">{dims}I", data[4:head])
    if len(data) - head != np.prod(shape, dtype=object):
        raise InputError(
            f"{path} is damaged: its header promises {' x '.join(map(str, shape))} bytes, "
            f"but {len(data) - head} follow; get the file again."
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
