"""MNIST, in every layout that is read."""

from __future__ import annotations

import gzip
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written import idx, refusal, write_mnist

from fastinterp import data


@pytest.mark.parametrize("folder", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("zipped", ["", "ubyte", "images"])
def test_mnist_layouts(
    tmp_path: Path, mnist_parts: dict[str, np.ndarray], folder: str, zipped: str
) -> None:
    write_mnist(tmp_path / folder, mnist_parts, zipped)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        read = data.load("mnist", tmp_path, split)
        expected = mnist_parts[f"{prefix}-images-idx3-ubyte"]
        np.testing.assert_array_equal(read.images[:, 0].numpy(), expected)
        expected = mnist_parts[f"{prefix}-labels-idx1-ubyte"]
        np.testing.assert_array_equal(read.labels.numpy(), expected)
        assert read.classes == tuple("0123456789")
    assert data.load("mnist", str(tmp_path)).name == "mnist"


def test_mnist_can_be_resized(mnist: Path) -> None:
    assert data.load("mnist", mnist, size=32).images.shape == (5, 1, 32, 32)


def test_missing_mnist_files_are_named(mnist: Path) -> None:
    (mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    says = refusal("mnist", mnist)
    assert "lacks files" in says and "t10k-labels-idx1-ubyte" in says
    assert "allow_partial" not in says
    assert len(data.load("mnist", mnist, "train")) == 7
    assert "lacks files" in refusal("mnist", mnist, allow_partial=True)  # that is for cifar10


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:100], "damaged"),
        (lambda raw: raw + b"x", "damaged"),
        (lambda raw: raw[:9], "not an idx file"),
        (lambda raw: b"", "not an idx file"),
        (lambda raw: b"\x00\x00\x0d\x03" + raw[4:], "0x00000d03"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "damaged"),
        (lambda raw: idx(np.zeros((4, 28, 28), np.uint8)), "holds 5 labels"),
        (lambda raw: idx(np.zeros((0, 28, 28), np.uint8)), "holds 5 labels"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_mnist_images_are_refused(
    mnist: Path, damage: Callable[[bytes], bytes], says: str, zipped: bool
) -> None:
    path = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    raw = damage(path.read_bytes())
    if zipped:
        path.unlink()
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
    else:
        path.write_bytes(raw)
    assert says in refusal("mnist", mnist)


def test_damaged_archives_and_labels_out_of_range_are_refused(mnist: Path) -> None:
    path = mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.array([1, 2, 3, 4, 10], np.uint8)))
    assert "0..9" in refusal("mnist", mnist)
    zipped = gzip.compress(path.read_bytes())
    path.unlink()
    for content in (b"no archive", zipped[:-9], zipped[:12] + b"\xff\xff" + zipped[14:]):
        path.with_name(path.name + ".gz").write_bytes(content)
        assert "get the file again" in refusal("mnist", mnist)


@pytest.mark.parametrize("declared", [(5, 28, 28), (400_000, 28, 28), (2**32 - 1, 28, 28)])
def test_an_archive_of_gigabytes_is_refused_at_once(
    mnist: Path, declared: tuple[int, int, int]
) -> None:
    path = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.unlink()
    with gzip.open(f"{path}.gz", "wb", compresslevel=1) as archive:
        archive.write(struct.pack(">I3I", 0x0803, *declared))
        for _ in range(256):
            archive.write(bytes(1 << 20))
    began = time.monotonic()
    tracemalloc.start()
    try:
        assert "damaged" in refusal("mnist", mnist)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * min(np.prod(declared), 1 << 28) + (1 << 20)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("shape", [(5, 0, 0), (5, 14, 56), (5, 28, 1)])
def test_images_of_another_size_are_refused(mnist: Path, shape: tuple[int, ...]) -> None:
    path = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros(shape, np.uint8)))
    assert "28 x 28" in refusal("mnist", mnist)


def test_a_pipe_is_no_file(mnist: Path) -> None:
    path = mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.unlink()
    os.mkfifo(path)
    assert "t10k-labels-idx1-ubyte" in refusal("mnist", mnist)
