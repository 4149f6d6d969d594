"""What a user may get wrong in `data.load`; and the real data, where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from written import refusal

from fastinterp import data


@pytest.mark.parametrize("name", [name for name in data.NAMES if name != "digits"])
def test_a_root_that_does_not_serve_says_what_it_should_hold(tmp_path: Path, name: str) -> None:
    hint = {"mnist": "MNIST/raw/", "cifar10": "cifar-10-batches-py/"}.get(name, "for each class")
    assert hint in refusal(name)
    assert hint in refusal(name, tmp_path / "absent")
    assert hint in refusal(name, tmp_path)
    (tmp_path / "file").write_text("")
    assert hint in refusal(name, tmp_path / "file")


def test_unknown_names_splits_sizes_and_devices_are_refused(mnist: Path) -> None:
    assert ", ".join(data.NAMES) in refusal("svhn", mnist)
    assert "'mnist'?" in refusal("mnsit", mnist)
    assert "'mnist'?" in refusal(["mnist"], mnist)
    assert "'train', 'test'" in refusal("mnist", mnist, "validation")
    assert "'gpu'" in refusal("mnist", mnist, device="gpu")
    for size in (0, "28", 28.5, True):
        assert "The size must be" in refusal("mnist", mnist, size=size)


def test_home_folders_are_found(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mnist.parent))
    assert len(data.load("mnist", f"~/{mnist.name}")) == 5


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
