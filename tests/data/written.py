"""Files as the data sets have them, written by tests; and how `load` refuses bad ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastinterp import InputError, data

RANDOM = np.random.RandomState(0)


def refusal(*args: Any, **kwargs: Any) -> str:
    """The sentence with which `load` refuses."""
    with pytest.raises(InputError) as error:
        data.load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, parts: dict[str, np.ndarray], zipped: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in parts.items():
        if zipped and zipped in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
