"""Folders of images, and Restricted ImageNet made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from written import refusal

from fastinterp import data


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


# The positions of each class among the folders of ImageNet, in the order of the paper's outputs.
RESTRICTED = {
    "dog": (151, 268), "cat": (281, 285), "frog": (30, 32), "turtle": (33, 37), "bird": (80, 100),
    "primate": (365, 382), "fish": (389, 397), "crab": (118, 121), "insect": (300, 319),
}  # fmt: skip


def test_restricted_imagenet_has_its_own_order(tmp_path: Path) -> None:
    paint(tmp_path, {name: [RED] for name in RESTRICTED})
    read = data.load("restricted_imagenet", tmp_path, size=4)
    assert read.classes == tuple(RESTRICTED)
    # The files are in alphabetical order of their folders; the labels are not.
    assert [read.classes[label] for label in read.labels] == sorted(RESTRICTED)
    (tmp_path / "cat" / "0.png").unlink()
    assert "cat" in refusal("restricted_imagenet", tmp_path)
    (tmp_path / "cat").rmdir()
    assert "lacks the class folder(s) cat" in refusal("restricted_imagenet", tmp_path)


def test_imagenet_itself_is_restricted_by_the_places_of_its_folders(tmp_path: Path) -> None:
    """1,000 folders; an image in the first and the last of each range, and one beside each."""
    wnids = [f"n{7 * i + 1440764:08d}" for i in range(1000)]
    for wnid in wnids:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    for first, last in RESTRICTED.values():
        for place in (first, last, *({first - 1, last + 1} - {32, 33})):
            Image.new("RGB", (5, 5), RED).save(tmp_path / "val" / wnids[place] / "0.png")
    read = data.load("restricted_imagenet", tmp_path, size=4)
    assert read.classes == tuple(RESTRICTED)
    assert torch.bincount(read.labels).tolist() == [2] * 9
    (tmp_path / "val" / wnids[500]).rmdir()
    assert "999 of ImageNet's folders" in refusal("restricted_imagenet", tmp_path)


def test_more_images_than_memory_are_refused(tmp_path: Path, monkeypatch) -> None:
    paint(tmp_path, {"a": [RED, RED]})
    monkeypatch.setattr("fastinterp.data.imagefolder._free_memory", lambda: 2 * 3 * 8 * 8 - 1)
    assert "smaller size" in refusal("imagefolder", tmp_path)
    assert len(data.load("imagefolder", tmp_path, size=7)) == 2


def test_restricted_imagenet_is_found_beside_other_data_sets(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    paint(tmp_path / "restricted_imagenet_sample", {name: [RED] for name in RESTRICTED})
    assert len(data.load("restricted_imagenet", tmp_path, size=4)) == 9
    paint(tmp_path / "restricted_imagenet" / "val", {name: [RED, BLUE] for name in RESTRICTED})
    assert len(data.load("restricted_imagenet", tmp_path, size=4)) == 18
    assert "no train split" in refusal("restricted_imagenet", tmp_path, "train")
    (tmp_path / "restricted_imagenet").rename(tmp_path / "restricted_imagenet_2")
    assert "lacks the class folder(s)" in refusal("restricted_imagenet", tmp_path)
