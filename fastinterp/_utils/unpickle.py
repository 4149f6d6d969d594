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
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .files import read_file

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
    """Replaces numpy.ndarray and the function that makes an empty one.

    An array is made at the end: a small pickle can name the same bytes for very many of them.
    """

    def __init__(self, *_: object) -> None:
        self.parts: tuple[Any, ...] = (b"", _Dtype("f8"), (0,), "C")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.parts = (data, dtype, shape, "F" if fortran else "C")


class _Buffer(_Array):
    """Replaces the function that makes an array from a buffer (pickle protocol 5)."""

    def __init__(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.parts = (data, dtype, shape, order)


class _Scalar(_Array):
    """Replaces the function that makes a NumPy scalar."""

    def __init__(self, dtype: _Dtype, data: Any) -> None:
        self.parts = (data, dtype, (), "C")


class _Encoded:
    """Replaces codecs.encode, with which Python 3 writes bytes in protocols 0 to 2.

    A class, not a function: a pickle could set attributes of a function.
    """

    def __init__(self, text: str, encoding: str) -> None:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding!r}")
        self.text = text

    def __setstate__(self, state: object) -> None:
        raise ValueError("bytes take no state")


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


def _require_text(keys: list[Any]) -> None:
    """Raise unless the keys of a dict are text. To hash nested tuples, or many chosen numbers, can
    take for ever."""
    if not all(isinstance(key, (str, bytes, _Encoded)) for key in keys):
        raise ValueError("the keys of a dict must be text")


_InPython: Any = pickle._Unpickler


class _Reader(_InPython):  # type: ignore[misc]
    """Python's own reader written in Python: that in C makes room for what a pickle declares."""

    # Sets hash what they hold.
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in _InPython.dispatch.items()
        if bytes([code]) not in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _REPLACEMENTS:
            raise _RefusedError(ascii(f"{module}.{name}")[:80])
        return _REPLACEMENTS[module, name]

    def load_setitem(self) -> None:
        _require_text(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _require_text(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _require_text(self.stack[::2])
        super().load_dict()

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


class _Plain:
    """Puts arrays and bytes in place of the classes of this file.

    Each value is converted once: a small pickle can name one list very many times.
    """

    def __init__(self, largest: int) -> None:
        self.left = largest  # bytes that arrays may still take
        self.done: dict[int, Any] = {}

    def convert(self, value: Any) -> Any:
        if id(value) not in self.done:
            plain = value
            if isinstance(value, _Encoded):
                plain = self._bytes(value)
            elif isinstance(value, _Array):
                plain = self._array(*value.parts)
            elif isinstance(value, (list, tuple)):
                plain = type(value)(map(self.convert, value))
            elif isinstance(value, dict):
                plain = {self.convert(key): self.convert(item) for key, item in value.items()}
            self.done[id(value)] = plain
        return self.done[id(value)]

    def _bytes(self, data: Any) -> Any:
        """What was written as bytes, of which Python 2, and old protocols, make text."""
        text = data.text if isinstance(data, _Encoded) else data
        self.left -= len(text)
        if self.left < 0:
            raise ValueError("arrays larger than the file")
        return text.encode("latin-1") if isinstance(text, str) else text

    def _array(self, data: Any, dtype: _Dtype, shape: Any, order: str) -> NDArray[Any]:
        data = self._bytes(data)
        if len(data) != math.prod(shape) * dtype.dtype.itemsize:
            raise ValueError("size")
        array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
        # A copy: writable, contiguous, in the byte order of this machine.
        return np.array(array, dtype=dtype.dtype.newbyteorder("="), order="C")


def read_pickle(path: str | Path) -> Any:
    """Read lists, dicts, numbers, text and NumPy arrays from a pickle.

    Strings of Python 2 become str (as latin-1). NumPy scalars become arrays without dimensions.

    Raises:
        InputError: the file cannot be read, is damaged, or names anything but NumPy arrays and
            scalars of booleans, integers and floats. Nothing that it names is imported or run.
    """
    data = read_file(path)
    try:
        # Arrays hold bytes of the file, each at most once.
        return _Plain(len(data)).convert(_Reader(io.BytesIO(data), encoding="latin-1").load())
    except _RefusedError as refused:
        raise InputError(
            f"Refused to read {path}: the pickle names {refused}, which could run code; only NumPy "
            "arrays and plain values are read, so get the file from a source that you trust."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"Cannot read {path}: it is damaged or holds no NumPy arrays; get the file again."
        ) from error
