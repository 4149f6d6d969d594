"""Small pickles that would use up memory or time do neither."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from fastinterp import InputError
from fastinterp._utils.unpickle import read_pickle

MANY = 2**24  # enough to be seen, and little enough for a machine where it is not refused


def nested(open_and_close: bytes) -> bytes:
    """A value that holds one value twice, which holds one value twice, and so on, 28 times."""
    levels = b"".join(b"(h%ch%c" % (n, n) + open_and_close + b"q%c" % (n + 1) for n in range(28))
    return b"\x80\x03)q\x00" + levels


def one_array_many_times() -> bytes:
    """A megabyte of bytes, in 3,000 arrays."""
    text = b"\x80\x03B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"q\xff0]"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87Rq\xfe0"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    state = b"(K\x01J" + struct.pack("<i", 1 << 20) + b"\x85h\xfe\x89h\xfftb"
    return text[:-1] + dtype + b"](" + (array + state) * 3000 + b"e."


BOMBS = {
    "a place far away in the memo": b"\x80\x04Nr" + struct.pack("<I", MANY) + b".",
    "the same, as text": b"Np%d\n." % MANY,
    "a byte array": b"\x80\x05\x96" + struct.pack("<Q", 20 * MANY) + b".",
    "a string": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "a key of nested tuples": b"%s}(h\x1cNu." % nested(b"t"),
    "such a key, alone": b"%s}h\x1cNs." % nested(b"t"),
    "such a key, in a dict of protocol 0": b"%s(h\x1cNd." % nested(b"t"),
    "a set of nested tuples": b"%s\x8f(h\x1c\x90." % nested(b"t"),
    "a frozen set of them": b"%s(h\x1c\x91." % nested(b"t"),
    "numbers of one hash": pickle.dumps({(2**61 - 1) * n: None for n in range(20_000)}),
    "one array many times": one_array_many_times(),
    "lists in lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples in tuples": b"(" * 100_000 + b"t" * 100_000 + b".",
    "a number of many digits": b"L" + b"9" * 1_000_000 + b"L\n.",
}


HARMLESS = ("a place far away in the memo", "the same, as text", "a frame")


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_no_harm(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[name])
    began = time.monotonic()
    tracemalloc.start()
    try:
        if name in HARMLESS:
            assert read_pickle(path) is None
        else:
            with pytest.raises(InputError, match=r"bomb\.pkl"):
                read_pickle(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert time.monotonic() - began < 5


def test_a_value_named_very_often_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.pkl"
    path.write_bytes(nested(b"l") + b".")
    value = read_pickle(path)
    for _ in range(28):
        value, again = value
        assert value is again
