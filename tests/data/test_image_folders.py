"""Folders of images, and Restricted ImageNet made of them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
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
    monkeypatch.setattr("fastinterp._utils.files._free_memory", lambda: 2 * 3 * 8 * 8 - 1)
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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "PCX", "TGA", "ICO"])
def test_other_kinds_of_images_are_refused(tmp_path: Path, kind: str) -> None:
    """Among them one for which Pillow starts Ghostscript, and one by the name of another kind."""
    paint(tmp_path, {"a": [RED]})
    if kind == "EPS":
        (tmp_path / "a" / "x.png").write_bytes(POSTSCRIPT)
    else:
        Image.new("RGB", (9, 9), RED).save(tmp_path / "a" / "x.png", kind)
    says = refusal("imagefolder", tmp_path)
    assert "x.png" in says and "JPEG, PNG, BMP, WEBP, TIFF" in says


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_kinds_that_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9), (200, 200, 200)).save(tmp_path / "a" / "x.png", kind)
    read = data.load("imagefolder", tmp_path, size=4).images
    assert int((read.int() - 200).abs().max()) <= 2


@pytest.mark.parametrize("side", [10_000, 14_000, 2**31 - 1])
def test_a_small_file_of_a_huge_image_is_refused(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(999)))
    )
    assert "pixels" in refusal("imagefolder", tmp_path)


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    grey = np.array([[0, 128, 257], [129, 32768, 65535], [65407, 256, 65406]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a" / "x.png")
    read = data.load("imagefolder", tmp_path, size=3).images[0]
    assert read[0].tolist() == [[0, 0, 1], [1, 128, 255], [255, 1, 254]]
    assert bool((read == read[0]).all())


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_tiffs_of_more_than_8_bits_are_refused(tmp_path: Path, dtype: type) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((3, 3), dtype)).save(tmp_path / "a" / "x.tiff")
    assert "not of 8 bits" in refusal("imagefolder", tmp_path)


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    paint(root, {"a": [RED, RED], "b": [BLUE]})
    paint(tmp_path, {"more": [GREEN]})
    (root / "a" / "itself").symlink_to(root / "a")
    (root / "a" / "above").symlink_to(tmp_path)
    for name in ("other", "again"):
        (root / "a" / name).symlink_to(tmp_path / "more")
    assert data.load("imagefolder", root, size=4).labels.tolist() == [0, 0, 0, 1]


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    paint(tmp_path, {"a": [RED]})
    os.mkfifo(tmp_path / "a" / "x.png")
    assert "no regular file" in refusal("imagefolder", tmp_path)
