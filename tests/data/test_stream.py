"""Images that are read from files batch by batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from fastinterp import InputError, data
from fastinterp.data.imagefolder import RESTRICTED_IMAGENET


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and val/ with 2 classes of pictures of many sizes and colours."""
    for split, count in (("train", 9), ("val", 3)):
        for name in ("cold", "warm"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (12 + i, 20, 3), dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
    return tmp_path


def joined(batches) -> tuple[torch.Tensor, torch.Tensor]:
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_a_stream_has_the_files_of_torchvision_and_the_pixels_of_load(folder: Path) -> None:
    stream = data.stream("imagefolder", folder, "train", size=16)
    theirs = datasets.ImageFolder(str(folder / "train"))
    assert list(zip(stream.files, stream.labels.tolist(), strict=True)) == theirs.samples
    assert list(stream.classes) == theirs.classes
    held = data.load("imagefolder", folder, "train", size=16)
    x, y = joined(stream.batches(4))
    assert torch.equal(x, held.float()) and torch.equal(y, held.labels)
    assert torch.equal(stream.float([3, 1]), held.float([3, 1]))
    assert torch.equal(stream[5][0], held[5][0]) and stream[-1][1] == 1
    assert (stream.channels, stream.num_classes, len(stream)) == (3, 2, 18)


def test_order_and_transforms_depend_on_the_seed_alone(folder: Path) -> None:
    def read(workers: int, seed: int, start: int = 0, shuffle: bool = True):
        torch.manual_seed(workers)  # torch's global state does not matter, and is left alone
        stream = data.stream("imagefolder", folder, "train", "random-crop", workers, size=8)
        before = torch.get_rng_state()
        found = joined(stream.batches(5, shuffle=shuffle, seed=seed, start=start, drop_last=True))
        assert torch.equal(torch.get_rng_state(), before)
        return found

    here, there = read(0, 3), read(2, 3)
    assert len(here[0]) == 15  # the last batch would have 3 images
    assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
    assert torch.equal(read(0, 3, start=2)[0], here[0][10:])
    assert not torch.equal(read(0, 4)[0], here[0])
    assert not torch.equal(read(0, 3, shuffle=False)[0], read(0, 4, shuffle=False)[0])


def test_transforms_of_torchvision_and_a_dataloader(folder: Path) -> None:
    grey = v2.Compose([v2.Grayscale(), v2.Resize((6, 6)), v2.PILToTensor()])
    stream = data.stream("imagefolder", folder, "test", grey)
    x, _ = next(iter(DataLoader(stream, batch_size=4)))
    assert x.shape == (4, 1, 6, 6) and x.is_floating_point() and float(x.max()) <= 1
    middle = data.stream("imagefolder", folder, "test", "center-crop", size=14)
    theirs = v2.Compose([v2.Resize(16), v2.CenterCrop(14), v2.PILToTensor()])
    assert torch.equal(middle.read(2), theirs(Image.open(middle.files[2])))


def test_wrong_transforms_and_damaged_files_are_one_sentence(folder: Path) -> None:
    for transform, says in (
        (lambda image: image, r"must give tensors \[C, H, W\]"),
        (lambda image: torch.zeros(3, 4, 4, dtype=torch.int32), "uint8, or floats"),
    ):
        with pytest.raises(InputError, match=says):
            data.stream("imagefolder", folder, "test", transform)[0]
    for call in (
        lambda: data.stream("imagefolder", folder, "test", "whatever"),
        lambda: data.stream("mnist", folder),
        lambda: data.stream("imagefolder", folder / "absent"),
        lambda: data.stream("imagefolder", folder, workers=-1),
    ):
        with pytest.raises(InputError):
            call()
    (folder / "val" / "warm" / "1.png").write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^Cannot read the image [^\n]*1\.png[^\n]*$"):
            list(data.stream("imagefolder", folder, "test", size=8, workers=workers).batches(4))


def test_more_images_than_memory_can_be_streamed_only(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastinterp._utils.files._free_memory", lambda: 8 * 8 * 3 * 4 * 4)
    stream = data.stream("imagefolder", folder, "test", size=8)
    with pytest.raises(InputError, match="batch by batch"):
        stream.float()
    monkeypatch.setattr("fastinterp._utils.files._free_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"data\.stream"):
        data.load("imagefolder", folder, "test", size=8)
    assert len(joined(stream.batches(4))[0]) == 6


def test_restricted_imagenet_is_streamed_in_the_order_of_the_paper(tmp_path: Path) -> None:
    for name in RESTRICTED_IMAGENET:
        (tmp_path / "restricted_imagenet" / "val" / name).mkdir(parents=True)
        path = tmp_path / "restricted_imagenet" / "val" / name / "0.png"
        Image.new("RGB", (5, 5), (255, 0, 0)).save(path)
    stream = data.stream("restricted_imagenet", tmp_path, size=4)
    assert stream.classes == tuple(RESTRICTED_IMAGENET)
    assert torch.equal(stream.labels, data.load("restricted_imagenet", tmp_path, size=4).labels)
    part = stream.subset([8, 0])
    assert [part.classes[label] for label in part.labels] == sorted(RESTRICTED_IMAGENET)[::-8]
    assert torch.equal(part.float(), stream.float()[[8, 0]])
