"""`data.load`: wrong arguments, the built-in digits, and real data where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from written import refusal

from fastinterp import data
from fastinterp.data.torchvision_sets import SETS


@pytest.mark.parametrize("name", [name for name in data.NAMES if name != "digits"])
def test_a_root_that_does_not_serve_says_what_it_should_hold(tmp_path: Path, name: str) -> None:
    own = {"mnist": "MNIST/raw/", "cifar10": "cifar-10-batches-py/", "cifar100": "cifar-100-python"}
    own |= {name: each.layout for name, each in SETS.items()}
    hint = own.get(name, "for each class")
    assert hint in refusal(name)
    assert hint in refusal(name, tmp_path / "absent")
    assert hint in refusal(name, tmp_path)
    (tmp_path / "file").write_text("")
    assert hint in refusal(name, tmp_path / "file")


def test_unknown_names_splits_sizes_and_devices_are_refused(mnist: Path) -> None:
    assert ", ".join(data.NAMES) in refusal("voc", mnist)
    assert "'mnist'?" in refusal("mnsit", mnist)
    assert "'mnist'?" in refusal(["mnist"], mnist)
    assert "'train', 'test'" in refusal("mnist", mnist, "validation")
    assert "'gpu'" in refusal("mnist", mnist, device="gpu")
    for size in (0, "28", 28.5, True):
        assert "The size must be" in refusal("mnist", mnist, size=size)


def test_home_folders_are_found(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mnist.parent))
    assert len(data.load("mnist", f"~/{mnist.name}")) == 5


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
