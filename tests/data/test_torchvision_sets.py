"""Data sets by torchvision's names, from small files in their formats; nothing is downloaded."""

from __future__ import annotations

import bz2
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets
from written import RANDOM, refusal, write_mnist

from fastinterp import data


def bytes_of(*shape: int) -> np.ndarray:
    return RANDOM.randint(0, 256, shape).astype(np.uint8)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_sets_in_the_format_of_mnist(tmp_path: Path, mnist_parts, name: str) -> None:
    write_mnist(tmp_path / name / "raw", mnist_parts)
    read = data.load(name, tmp_path, "train")
    np.testing.assert_array_equal(read.images[:, 0].numpy(), mnist_parts["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(read.labels.numpy(), mnist_parts["train-labels-idx1-ubyte"])
    assert (read.name, len(read.classes)) == (name.lower(), 10)
    assert len(data.load(name.lower(), tmp_path)) == 5


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = bytes_of(32, 32, 3, 4), np.array([[10], [1], [9], [10]])
    savemat(tmp_path / "test_32x32.mat", {"X": images, "y": labels})
    entry = ["", "test_32x32.mat", md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()]
    monkeypatch.setitem(datasets.SVHN.split_list, "test", entry)
    read = data.load("SVHN", tmp_path)
    assert read.labels.tolist() == [0, 1, 9, 0]  # theirs begin at 1, with 10 for 0
    np.testing.assert_array_equal(read.images.numpy(), images.transpose(3, 2, 0, 1))
    assert "train_32x32.mat" in refusal("SVHN", tmp_path, "train")


def test_usps_has_classes_also_where_torchvision_names_none(tmp_path: Path) -> None:
    row = " ".join(f"{place + 1}:-1.0" for place in range(256))
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress(f"3 {row}\n10 {row}\n".encode()))
    read = data.load("usps", tmp_path)
    assert (read.labels.tolist(), read.num_classes) == ([2, 9], 10)
    assert int(read.images.max()) == 0


def test_nothing_is_downloaded_unless_asked(tmp_path: Path, monkeypatch, mnist_parts) -> None:
    says = refusal("FashionMNIST", tmp_path)
    assert "FashionMNIST/raw/" in says and "--download" in says

    def download(self: datasets.MNIST) -> None:
        write_mnist(Path(self.raw_folder), mnist_parts)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    monkeypatch.setattr(datasets.FashionMNIST, "download", download)
    fresh = tmp_path / "fresh"
    assert len(data.load("fashionmnist", fresh, download=True)) == 5
    assert len(data.load("mnist", fresh, "train", download=True)) == 7
    assert "cannot be downloaded" in refusal("imagenet", tmp_path, download=True)


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def fail(self: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.SVHN, "download", fail)
    says = refusal("svhn", tmp_path, download=True)
    assert "no route to host; check the network" in says


def test_files_that_are_there_are_not_downloaded_again(mnist: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("downloaded"))
    assert len(data.load("mnist", mnist / "MNIST" / "raw", download=True)) == 5
