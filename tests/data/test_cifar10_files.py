"""CIFAR-10 and CIFAR-100, in every layout that is read."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import RANDOM, refusal

from fastinterp import data

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def batch(count: int) -> tuple[np.ndarray, list[int]]:
    images = RANDOM.randint(0, 256, (count, 3072)).astype(np.uint8)
    return images, RANDOM.randint(0, 10, count).tolist()


@pytest.fixture
def parts() -> dict[str, tuple[np.ndarray, list[int]]]:
    return {name: batch(i + 1) for i, name in enumerate(NAMES)}


def write(folder: Path, parts: dict[str, Any], how: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in parts.items():
        if how == "binary":
            records = np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            (folder / name).write_bytes(pickled(images, labels, how))


def pickled(images: np.ndarray, labels: list[int], how: str) -> bytes:
    if how == "python 2":  # as the official files are: byte strings, numpy 1's names
        raw = pickle_python_2(images, labels)
        assert pickle.loads(raw, encoding="bytes")[b"labels"] == labels
        return raw
    batch: dict[Any, Any] = {"data": images, "labels": labels, "filenames": ["a.png"]}
    if how == "bytes keys":
        batch = {key.encode(): value for key, value in batch.items()}
    return pickle.dumps(batch, protocol=int(how[-1]) if how[-1].isdigit() else None)


def pickle_python_2(images: np.ndarray, labels: list[int]) -> bytes:
    """What cPickle of Python 2 writes, by hand: SHORT_BINSTRING and BINSTRING for its str."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array += number(0) + b"\x85" + text(b"b") + b"\x87R"
    shape = number(images.shape[0]) + number(images.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + text(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


@pytest.mark.parametrize(
    "how", ["binary", "python 2", "bytes keys", "protocol 2", "protocol 4", "protocol 5"]
)
@pytest.mark.parametrize("inside", [True, False])
def test_layouts(tmp_path: Path, parts: Any, how: str, inside: bool) -> None:
    folder = tmp_path / f"cifar-10-batches-{'bin' if how == 'binary' else 'py'}"
    write(folder, parts, how)
    root = folder if inside else tmp_path
    test = data.load("cifar10", root)
    images, labels = parts["test_batch"]
    np.testing.assert_array_equal(test.images.flatten(1).numpy(), images)
    assert test.labels.tolist() == labels
    assert test.images.shape == (6, 3, 32, 32)
    assert test.classes[:3] == ("airplane", "automobile", "bird")
    train = data.load("cifar10", root, "train")
    every = np.concatenate([parts[name][0] for name in NAMES[:5]])
    np.testing.assert_array_equal(train.images.flatten(1).numpy(), every)


@pytest.mark.parametrize("how", ["binary", "protocol 4"])
def test_missing_files_are_named(tmp_path: Path, parts: Any, how: str) -> None:
    write(tmp_path / f"cifar-10-batches-{'bin' if how == 'binary' else 'py'}", parts, how)
    for path in tmp_path.glob("*/data_batch_[24]*"):
        path.unlink()
    says = refusal("cifar10", tmp_path, "train")
    end = ".bin" if how == "binary" else ""
    assert f": data_batch_2{end}, data_batch_4{end}; " in says
    assert "allow_partial=True" in says
    assert len(data.load("cifar10", tmp_path, "train", allow_partial=True)) == 1 + 3 + 5
    for path in tmp_path.glob("*/data_batch_*"):
        path.unlink()
    assert "cifar-10-batches-py/" in refusal("cifar10", tmp_path, "train", allow_partial=True)
    assert len(data.load("cifar10", tmp_path)) == 6


def test_of_two_layouts_the_complete_one_is_read(tmp_path: Path, parts: Any) -> None:
    write(tmp_path / "cifar-10-batches-py", {"data_batch_1": batch(9)}, "protocol 4")
    write(tmp_path / "cifar-10-batches-bin", parts, "binary")
    assert len(data.load("cifar10", tmp_path, "train")) == 1 + 2 + 3 + 4 + 5


def test_damaged_files_are_refused(tmp_path: Path, parts: Any) -> None:
    write(tmp_path, parts, "binary")
    path = tmp_path / "test_batch.bin"
    content = path.read_bytes()
    cases = ((content[:-1], "damaged"), (b"", "damaged"), (b"\x0a" + content[1:], "0..9"))
    for damaged, says in cases:
        path.write_bytes(damaged)
        assert says in refusal("cifar10", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": ["a", "b"]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [[1], [2, 3]]},
        {"data": np.zeros((2, 1024), np.uint8), "labels": [1, 2]},
        {"data": np.uint8(3), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1, 2]},
        {"data": np.zeros(3072, np.uint8), "labels": np.uint8(3)},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [10**30]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [True]},
    ],
    ids=range(13),
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    assert "expected a pickled dict" in refusal("cifar10", tmp_path)


def test_a_batch_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'it-ran'}",)

    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [1], "extra": Evil()}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch))
    assert "could run code" in refusal("cifar10", tmp_path)
    assert not (tmp_path / "it-ran").exists()
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch["labels"])[:-3])
    assert "damaged" in refusal("cifar10", tmp_path)


def test_lists_that_name_one_list_very_often_are_refused_at_once(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested, nested]
    for key in ("data", "labels"):
        batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [1]}
        (tmp_path / "test_batch").write_bytes(pickle.dumps({**batch, key: nested}))
        assert "expected a pickled dict" in refusal("cifar10", tmp_path)


THINGS = [f"thing {number}" for number in range(100)]


def write_cifar100(folder: Path, images: np.ndarray, fine: list[int], names=THINGS) -> None:
    folder.mkdir()
    if "python" in folder.name:
        content = {b"data": images, b"fine_labels": fine, b"coarse_labels": [0] * len(fine)}
        (folder / "train").write_bytes(pickle.dumps(content, protocol=2))
        meta = {b"fine_label_names": [name.encode() for name in names]}
        (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    else:
        coarse = np.zeros((len(fine), 1), np.uint8)
        records = np.hstack([coarse, np.array(fine, np.uint8)[:, None], images])
        (folder / "train.bin").write_bytes(records.tobytes())
        text = "\n".join(name.replace(" ", "_") for name in names)
        (folder / "fine_label_names.txt").write_text(text + "\n")


@pytest.mark.parametrize("version", ["python", "binary"])
def test_cifar100_has_fine_labels_and_their_names(tmp_path: Path, version: str) -> None:
    images = RANDOM.randint(0, 256, (3, 3072)).astype(np.uint8)
    write_cifar100(tmp_path / f"cifar-100-{version}", images, [99, 0, 7])
    for root in (tmp_path, tmp_path / f"cifar-100-{version}"):
        read = data.load("CIFAR-100", root, "train")
        np.testing.assert_array_equal(read.images.numpy(), images.reshape(3, 3, 32, 32))
        assert read.labels.tolist() == [99, 0, 7]
        assert [name.replace("_", " ") for name in read.classes] == THINGS
    assert f"cifar-100-{version} lacks files" in refusal("cifar100", tmp_path)


@pytest.mark.parametrize("version", ["python", "binary"])
def test_damaged_files_of_cifar100_are_refused(tmp_path: Path, version: str) -> None:
    images = RANDOM.randint(0, 256, (3, 3072)).astype(np.uint8)
    folder = tmp_path / f"cifar-100-{version}"
    write_cifar100(folder, images, [1, 2, 3], THINGS[:99])
    assert "100 classes" in refusal("cifar100", tmp_path, "train")
    file = folder / ("train" if version == "python" else "train.bin")
    file.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert str(file) in refusal("cifar100", tmp_path, "train")
