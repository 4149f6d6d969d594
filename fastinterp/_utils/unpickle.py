"""Reading pickles of NumPy arrays and plain values without running anything that they name.

A pickle is a program, and NumPy's constructors trust its arguments. So it gets none of them: each
NumPy global that arrays need is replaced by a class of this file, which checks what it is given
before it makes an array of it.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class _Dtype:
    """Replaces numpy.dtype; only booleans, integers and floats."""

    def __init__(self, code: str, *_: object) -> None:
        if not _DTYPE.fullmatch(code):
            raise ValueError(f"dtype {code!r}")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if (subarray, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise ValueError("not a plain dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Replaces numpy.ndarray and the function that makes an empty one."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _as_array(data, dtype, shape, "F" if fortran else "C")


class _Buffer(_Array):
    """Replaces the function that makes an array from a buffer (pickle protocol 5)."""

    def __init__(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.value = _as_array(data, dtype, shape, order)


class _Scalar(_Array):
    """Replaces the function that makes a NumPy scalar."""

    def __init__(self, dtype: _Dtype, data: Any) -> None:
        self.value = _as_array(data, dtype, (), "C")


class _Encoded:
    """Replaces codecs.encode, with which Python 3 writes bytes in protocols 0 to 2.

    A class, not a function: a pickle could set attributes of a function.
    """

    def __init__(self, text: str, encoding: str) -> None:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding!r}")
        self.value = text.encode("latin-1")

    def __setstate__(self, state: object) -> None:
        raise ValueError("bytes take no state")


def _as_array(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    if isinstance(data, _Encoded):
        data = data.value
    elif isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin-1")
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError("size")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    # A copy: writable, contiguous, in the byte order of this machine.
    return np.array(array, dtype=dtype.dtype.newbyteorder("="), order="C")


_REPLACEMENTS: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _Encoded,
    **{
        (f"numpy.{core}.{module}", name): replacement
        for core in ("core", "_core")  # NumPy 1 and NumPy 2
        for module, name, replacement in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}


class _RefusedError(Exception):
    """A pickle names something other than NumPy arrays and scalars."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _REPLACEMENTS:
            raise _RefusedError(ascii(f"{module}.{name}")[:80])
        return _REPLACEMENTS[module, name]


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays and bytes in place of the classes of this file.

    `done` holds what was converted, by id: a small pickle can name one list very many times.
    """
    if id(value) not in done:
        plain = value
        if isinstance(value, (_Array, _Encoded)):
            plain = value.value
        elif isinstance(value, (list, tuple)):
            plain = type(value)(_plain(item, done) for item in value)
        elif isinstance(value, dict):
            plain = {_plain(key, done): _plain(item, done) for key, item in value.items()}
        done[id(value)] = plain
    return done[id(value)]


def read_pickle(path: str | Path) -> Any:
    """Read lists, dicts, numbers, text and NumPy arrays from a pickle.

    Strings of Python 2 become str (as latin-1). NumPy scalars become arrays without dimensions.

    Raises:
        InputError: the file cannot be read, is damaged, or names anything but NumPy arrays and
            scalars of booleans, integers and floats. Nothing that it names is imported or run.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        return _plain(_Reader(io.BytesIO(data), encoding="latin-1").load(), {})
    except _RefusedError as refused:
        raise InputError(
            f"Refused to read {path}: the pickle names {refused}, which could run code; only NumPy "
            "arrays and plain values are read, so get the file from a source that you trust."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"Cannot read {path}: it is damaged or holds no NumPy arrays; get the file again."
        ) from error
