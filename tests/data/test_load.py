"""Every layout that is read, from tiny files; and the real data, where they are."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastinterp import InputError, data

RANDOM = np.random.RandomState(0)


def refusal(*args: Any, **kwargs: Any) -> str:
    """The sentence with which `load` refuses."""
    with pytest.raises(InputError) as error:
        data.load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# digits


def test_digits_are_always_there() -> None:
    train, test = data.load("digits", split="train"), data.load("digits")
    assert train.images.shape == (1437, 1, 28, 28)
    assert test.images.shape == (360, 1, 28, 28)
    assert train.classes == test.classes == tuple("0123456789")
    for part in (train, test):
        assert part.images.min() == 0
        assert part.images.max() == 255
        assert set(part.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_in_the_place_of_the_folder_is_refused(split: str, monkeypatch, tmp_path) -> None:
    assert f"split={split!r}" in refusal("digits", split)
    monkeypatch.chdir(tmp_path)
    assert f"split={split!r}" in refusal("mnist", split)
    (tmp_path / split).mkdir()  # a folder of that name is a folder
    assert "expected" in refusal("mnist", split)


@pytest.mark.parametrize("size", ["28", 28.5, True])
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    assert "size must be a whole number" in refusal("digits", size=size)


def test_digits_keep_their_pictures_and_their_official_order() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    both = [data.load("digits", split=split) for split in ("train", "test")]
    labels = torch.cat([part.labels for part in both])
    np.testing.assert_array_equal(labels.numpy(), source.target)
    images = torch.cat([part.images for part in both])[:, 0].numpy()
    for ours, grey in zip(images, source.images, strict=True):
        picture = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8))
        expected = np.asarray(picture.resize((28, 28), Image.Resampling.BILINEAR), np.int16)
        assert abs(ours - expected).max() <= 1  # rounded differently


def test_no_digit_is_in_both_splits() -> None:
    train, test = data.load("digits", split="train"), data.load("digits")
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(both)


# mnist


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_parts() -> dict[str, np.ndarray]:
    parts = {}
    for prefix, count in (("train", 7), ("t10k", 5)):
        parts[f"{prefix}-images-idx3-ubyte"] = RANDOM.randint(0, 256, (count, 28, 28))
        parts[f"{prefix}-labels-idx1-ubyte"] = RANDOM.randint(0, 10, count)
    return {name: array.astype(np.uint8) for name, array in parts.items()}


@pytest.fixture
def mnist(tmp_path: Path, mnist_parts: dict[str, np.ndarray]) -> Path:
    write_mnist(tmp_path / "MNIST" / "raw", mnist_parts)
    return tmp_path


def write_mnist(folder: Path, parts: dict[str, np.ndarray], zipped: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in parts.items():
        if zipped and zipped in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


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
    assert "t10k-labels-idx1-ubyte is missing" in says
    assert "allow_partial" not in says
    assert len(data.load("mnist", mnist, "train")) == 7
    assert "incomplete" in refusal("mnist", mnist, allow_partial=True)  # that is for cifar10


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:100], "damaged"),
        (lambda raw: raw + b"x", "damaged"),
        (lambda raw: raw[:9], "not an idx file"),
        (lambda raw: b"", "not an idx file"),
        (lambda raw: b"\x00\x00\x0d\x03" + raw[4:], "0x00000d03"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "damaged"),
        (lambda raw: idx(np.zeros((4, 28, 28), np.uint8)), "do not belong together"),
        (lambda raw: idx(np.zeros((0, 28, 28), np.uint8)), "do not belong together"),
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


# cifar10


def cifar_batch(count: int) -> tuple[np.ndarray, list[int]]:
    images = RANDOM.randint(0, 256, (count, 3072)).astype(np.uint8)
    return images, RANDOM.randint(0, 10, count).tolist()


CIFAR_NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture
def cifar_parts() -> dict[str, tuple[np.ndarray, list[int]]]:
    return {name: cifar_batch(i + 1) for i, name in enumerate(CIFAR_NAMES)}


def write_cifar(folder: Path, parts: dict[str, Any], how: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in parts.items():
        if how == "binary":
            records = np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            (folder / name).write_bytes(pickled_batch(images, labels, how))


def pickled_batch(images: np.ndarray, labels: list[int], how: str) -> bytes:
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
def test_cifar10_layouts(tmp_path: Path, cifar_parts: Any, how: str, inside: bool) -> None:
    kind = "bin" if how == "binary" else "py"
    write_cifar(tmp_path / f"cifar-10-batches-{kind}", cifar_parts, how)
    root = tmp_path / f"cifar-10-batches-{kind}" if inside else tmp_path
    test = data.load("cifar10", root)
    images, labels = cifar_parts["test_batch"]
    np.testing.assert_array_equal(test.images.flatten(1).numpy(), images)
    assert test.labels.tolist() == labels
    assert test.images.shape == (6, 3, 32, 32)
    assert test.classes[:3] == ("airplane", "automobile", "bird")
    train = data.load("cifar10", root, "train")
    every = np.concatenate([cifar_parts[name][0] for name in CIFAR_NAMES[:5]])
    np.testing.assert_array_equal(train.images.flatten(1).numpy(), every)


@pytest.mark.parametrize("how", ["binary", "protocol 4"])
def test_missing_cifar10_files_are_named(tmp_path: Path, cifar_parts: Any, how: str) -> None:
    write_cifar(
        tmp_path / f"cifar-10-batches-{'bin' if how == 'binary' else 'py'}", cifar_parts, how
    )
    for path in tmp_path.glob("*/data_batch_[24]*"):
        path.unlink()
    says = refusal("cifar10", tmp_path, "train")
    end = ".bin" if how == "binary" else ""
    assert f": data_batch_2{end}, data_batch_4{end} are missing" in says
    assert "allow_partial=True" in says
    assert len(data.load("cifar10", tmp_path, "train", allow_partial=True)) == 1 + 3 + 5
    for path in tmp_path.glob("*/data_batch_*"):
        path.unlink()
    assert "no train split" in refusal("cifar10", tmp_path, "train", allow_partial=True)
    assert len(data.load("cifar10", tmp_path)) == 6


def test_of_two_layouts_the_complete_one_is_read(tmp_path: Path, cifar_parts: Any) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", {"data_batch_1": cifar_batch(9)}, "protocol 4")
    write_cifar(tmp_path / "cifar-10-batches-bin", cifar_parts, "binary")
    assert len(data.load("cifar10", tmp_path, "train")) == 1 + 2 + 3 + 4 + 5


def test_damaged_cifar10_files_are_refused(tmp_path: Path, cifar_parts: Any) -> None:
    write_cifar(tmp_path, cifar_parts, "binary")
    path = tmp_path / "test_batch.bin"
    content = path.read_bytes()
    for damaged, says in (
        (content[:-1], "damaged"),
        (b"", "damaged"),
        (b"\x0a" + content[1:], "0..9"),
    ):
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
    ],
    ids=range(10),
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    assert "no CIFAR-10 batch" in refusal("cifar10", tmp_path)


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


# folders of images


def paint(folder: Path, colours: dict[str, list[tuple[int, int, int]]]) -> None:
    for name, images in colours.items():
        (folder / name).mkdir(parents=True)
        for i, colour in enumerate(images):
            Image.new("RGB", (20 + i, 10), colour).save(folder / name / f"{i}.png")


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_class_folders_are_a_test_split(tmp_path: Path) -> None:
    paint(tmp_path, {"warm": [RED, RED], "cold": [BLUE]})
    read = data.load("imagefolder", tmp_path)
    assert read.images.shape == (3, 3, 224, 224)
    assert read.classes == ("cold", "warm")
    assert read.labels.tolist() == [0, 1, 1]
    assert read.images[:, :, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0], [255, 0, 0]]
    assert data.load("imagefolder", tmp_path, size=16).images.shape == (3, 3, 16, 16)
    assert "no train split" in refusal("imagefolder", tmp_path, "train")


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_split_folders(tmp_path: Path, test_name: str) -> None:
    paint(tmp_path / "train", {"a": [RED, GREEN], "b": [BLUE]})
    assert "no test split" in refusal("imagefolder", tmp_path)
    paint(tmp_path / test_name, {"a": [GREEN], "b": [BLUE]})
    assert len(data.load("imagefolder", tmp_path, "train", size=8)) == 3
    assert len(data.load("imagefolder", tmp_path, "test", size=8)) == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    paint(tmp_path, {"train": [RED], "plane": [BLUE, BLUE]})
    assert data.load("imagefolder", tmp_path, size=8).classes == ("plane", "train")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    assert "no class folders" in refusal("imagefolder", tmp_path)
    paint(tmp_path, {"full": [RED], "empty": [], "void": []})
    assert "no images in the class folder(s) empty, void" in refusal("imagefolder", tmp_path)


def test_grey_and_transparent_images_become_rgb_and_damaged_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (9, 9), 100).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 200)).save(tmp_path / "a" / "shine.png")
    read = data.load("imagefolder", tmp_path, size=4)
    assert read.images[:, :, 0, 0].tolist() == [[100, 100, 100], [1, 2, 3]]
    for content in (b"", b"no image", (tmp_path / "a" / "grey.png").read_bytes()[:50]):
        (tmp_path / "a" / "broken.png").write_bytes(content)
        assert "broken.png" in refusal("imagefolder", tmp_path)


def test_restricted_imagenet_has_its_own_order(tmp_path: Path) -> None:
    names = ["dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect"]
    paint(tmp_path, {name: [RED] for name in names})
    read = data.load("restricted_imagenet", tmp_path, size=4)
    assert read.classes == tuple(names)
    # The files are walked by name; the labels keep their order.
    assert [read.classes[label] for label in read.labels] == sorted(names)
    (tmp_path / "cat" / "0.png").unlink()
    assert "cat" in refusal("restricted_imagenet", tmp_path)
    (tmp_path / "cat").rmdir()
    assert "lacks the class folder(s) cat" in refusal("restricted_imagenet", tmp_path)


def test_imagenet_itself_is_restricted_by_the_places_of_its_folders(tmp_path: Path) -> None:
    """1,000 folders; an image in the first and the last of each range, and one beside each."""
    wnids = [f"n{7 * i + 1440764:08d}" for i in range(1000)]
    for wnid in wnids:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    inside = {
        "dog": (151, 268), "cat": (281, 285), "frog": (30, 32), "turtle": (33, 37),
        "bird": (80, 100), "primate": (365, 382), "fish": (389, 397), "crab": (118, 121),
        "insect": (300, 319),
    }  # fmt: skip
    for first, last in inside.values():
        for place in (first, last, *({first - 1, last + 1} - {32, 33})):
            Image.new("RGB", (5, 5), RED).save(tmp_path / "val" / wnids[place] / "0.png")
    read = data.load("restricted_imagenet", tmp_path, size=4)
    assert read.classes == tuple(inside)
    assert torch.bincount(read.labels).tolist() == [2] * 9
    (tmp_path / "val" / wnids[500]).rmdir()
    assert "999 of ImageNet's folders" in refusal("restricted_imagenet", tmp_path)


def test_more_images_than_memory_are_refused(tmp_path: Path, monkeypatch) -> None:
    paint(tmp_path, {"a": [RED, RED]})
    monkeypatch.setattr("fastinterp.data.imagefolder._free_memory", lambda: 2 * 3 * 8 * 8 - 1)
    assert "smaller size" in refusal("imagefolder", tmp_path)
    assert len(data.load("imagefolder", tmp_path, size=7)) == 2


def test_restricted_imagenet_is_found_beside_other_data_sets(tmp_path: Path) -> None:
    names = ["dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect"]
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    paint(tmp_path / "restricted_imagenet_sample", {name: [RED] for name in names})
    assert len(data.load("restricted_imagenet", tmp_path, size=4)) == 9
    paint(tmp_path / "restricted_imagenet" / "val", {name: [RED, BLUE] for name in names})
    assert len(data.load("restricted_imagenet", tmp_path, size=4)) == 18
    assert "no train split" in refusal("restricted_imagenet", tmp_path, "train")
    (tmp_path / "restricted_imagenet").rename(tmp_path / "restricted_imagenet_2")
    assert "lacks the class folder(s)" in refusal("restricted_imagenet", tmp_path)


# what a user may get wrong


@pytest.mark.parametrize("name", [name for name in data.NAMES if name != "digits"])
def test_a_root_that_does_not_serve_says_what_it_should_hold(tmp_path: Path, name: str) -> None:
    hint = {"mnist": "MNIST/raw/", "cifar10": "cifar-10-batches-py/"}.get(name, "for each class")
    assert hint in refusal(name)
    assert hint in refusal(name, tmp_path / "absent")
    assert hint in refusal(name, tmp_path)
    (tmp_path / "file").write_text("")
    assert hint in refusal(name, tmp_path / "file")


def test_unknown_names_splits_sizes_and_devices_are_refused(mnist: Path) -> None:
    for name in data.NAMES:
        assert name in refusal("svhn", mnist)
    assert "train or test" in refusal("mnist", mnist, "validation")
    assert "at least 1 pixel" in refusal("mnist", mnist, size=0)
    assert "'gpu'" in refusal("mnist", mnist, device="gpu")
    assert "digits" in refusal(["mnist"], mnist)


def test_home_folders_are_found(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mnist.parent))
    assert len(data.load("mnist", f"~/{mnist.name}")) == 5


# the real data


@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_real_mnist(shared: Path, split: Any, count: int) -> None:
    read = data.load("mnist", shared / "data", split)
    assert read.images.shape == (count, 1, 28, 28)
    assert torch.bincount(read.labels).min() > count * 0.09 - 50
    first = {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}[split]
    assert read.labels[:5].tolist() == first


def test_real_cifar10(shared: Path) -> None:
    read = data.load("cifar10", shared / "data")
    assert read.images.shape == (10000, 3, 32, 32)
    assert torch.bincount(read.labels).tolist() == [1000] * 10
    assert [read.classes[label] for label in read.labels[:3]] == ["cat", "ship", "ship"]
    train = shared / "data" / "cifar-10-batches-bin"
    if len(list(train.glob("data_batch_*"))) == 1:
        says = refusal("cifar10", shared / "data", "train")
        assert "data_batch_2.bin, data_batch_3.bin, data_batch_4.bin, data_batch_5.bin" in says
        assert len(data.load("cifar10", shared / "data", "train", allow_partial=True)) == 10000


def test_real_photographs(shared: Path) -> None:
    folder = shared / "data" / "restricted_imagenet_sample"
    read = data.load("imagefolder", folder, size=32)
    assert read.images.shape == (203, 3, 32, 32)
    assert read.num_classes == 9
    found = data.load("restricted_imagenet", shared / "data", size=32)
    assert (len(found), found.classes[0]) == (203, "dog")


@pytest.mark.cuda
def test_data_load_onto_a_gpu() -> None:
    assert data.load("digits", device="cuda").device.type == "cuda"
