"""ImageData: images as bytes on a device, batches as floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastinterp import InputError
from fastinterp.data import ImageData


def make(n: int = 10, channels: int = 2, classes: int = 4) -> ImageData:
    images = torch.randint(0, 256, (n, channels, 5, 6), dtype=torch.uint8)
    labels = torch.randint(0, classes, (n,))
    return ImageData(images, labels, tuple("abcdefgh"[:classes]), "made")


def test_every_byte_becomes_its_255th() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    data = ImageData(every, torch.zeros(256, dtype=torch.int64), ("a",))
    exact = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_array_equal(data.float().flatten().numpy(), exact)


def test_batches_in_order_hold_every_image_once() -> None:
    data = make(10)
    batches = list(data.batches(4))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), data.images / 255)
    assert torch.equal(torch.cat([y for _, y in batches]), data.labels)
    x, y = batches[0]
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert [len(x) for x, _ in data.batches(4, drop_last=True)] == [4, 4]
    assert [len(x) for x, _ in data.batches(5, drop_last=True)] == [5, 5]


def test_iteration_makes_batches_of_128() -> None:
    data = make(300)
    assert [len(x) for x, _ in data] == [len(x) for x, _ in data] == [128, 128, 44]


def test_shuffled_batches_follow_the_order_of_the_seed() -> None:
    data = make(10)
    order = data.order(7)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(10))
    for _ in range(2):
        shuffled = list(data.batches(3, shuffle=True, seed=7))
        assert torch.equal(torch.cat([x for x, _ in shuffled]), data.float()[order])
        assert torch.equal(torch.cat([y for _, y in shuffled]), data.labels[order])
    assert not torch.equal(order, data.order(8))


def test_the_order_of_a_seed_is_fixed_and_leaves_the_global_generator_alone() -> None:
    # Resumed and repeated runs depend on it.
    data = make(20)
    before = torch.get_rng_state()
    order = data.order(5)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator("cpu").manual_seed(5)
    assert torch.equal(order, torch.randperm(20, generator=generator))


def test_an_order_without_a_seed_is_drawn_from_the_global_generator() -> None:
    data = make(10)
    torch.manual_seed(1)
    first, second = data.order(), data.order()
    torch.manual_seed(1)
    assert torch.equal(data.order(), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "indices",
    [
        torch.tensor([3, 0, 3]),
        torch.tensor([3, 0, 3], dtype=torch.int32),
        np.array([3, 0, 3]),
        [3, 0, 3],
        (3, 0, 3),
    ],
    ids=["tensor", "int32", "array", "list", "tuple"],
)
def test_subsets_by_position(indices: Any) -> None:
    data = make(10)
    part = data.subset(indices)
    assert torch.equal(part.images, data.images[[3, 0, 3]])
    assert torch.equal(part.labels, data.labels[[3, 0, 3]])
    assert (part.classes, part.name) == (data.classes, data.name)
    assert torch.equal(data.float(indices), part.float())


def test_subsets_by_slice_mask_and_range() -> None:
    data = make(10)
    assert torch.equal(data.subset(slice(2, 5)).images, data.images[2:5])
    assert torch.equal(data.subset(range(2, 5)).images, data.images[2:5])
    mask = data.labels == data.labels[0]
    for chosen in (mask, mask.numpy(), mask.tolist()):
        assert torch.equal(data.subset(chosen).images, data.images[mask])
    assert len(data.subset([])) == 0
    assert torch.equal(data.float(slice(1, 3)), data.images[1:3] / 255)


@pytest.mark.parametrize(
    ("indices", "says"),
    [
        ([0, 10], "0..9"),
        (torch.tensor([1000]), "0..9"),
        (torch.tensor([-1]), "0..9"),
        ([0.5], "whole numbers"),
        ([[1]], "whole numbers"),
        ([True, False], "whole numbers"),
        ("abc", "whole numbers"),
        (3, "whole numbers"),
    ],
    ids=str,
)
def test_wrong_positions_are_refused(indices: Any, says: str) -> None:
    data = make(10)
    for call in (data.subset, data.float):
        with pytest.raises(InputError, match=says):
            call(indices)


def test_torch_takes_it_for_a_data_set() -> None:
    from torch.utils.data import DataLoader, Dataset

    data = make(10)
    assert isinstance(data, Dataset)
    image, label = data[3]
    assert torch.equal(image, data.float([3])[0])
    assert (type(label), label) == (int, int(data.labels[3]))
    assert torch.equal(data[-1][0], data.float([9])[0])
    batches = list(DataLoader(data, batch_size=4))
    assert torch.equal(torch.cat([x for x, _ in batches]), data.float())
    assert torch.equal(torch.cat([y for _, y in batches]), data.labels)
    with pytest.raises(IndexError, match="10 images"):
        data[10]
    with pytest.raises(InputError, match="subset"):
        data[1:3]  # type: ignore[index]


@pytest.mark.parametrize("number", [0, -3, "8", 2.5])
def test_wrong_sizes_are_refused_at_once(number: Any) -> None:
    with pytest.raises(InputError, match="size must be"):
        make().resized(number)
    with pytest.raises(InputError, match="batch_size must be"):
        make().batches(number)


IMAGES = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (IMAGES.float(), LABELS, "images must be uint8"),
        (IMAGES[0], LABELS, "images must be uint8"),
        (IMAGES, LABELS[:2], "labels must be int64"),
        (IMAGES, LABELS.int(), "labels must be int64"),
        (IMAGES, LABELS.to("meta"), "same device"),
        (IMAGES, LABELS + 1, "0..0"),
        (IMAGES, LABELS - 1, "0..0"),
    ],
    ids=range(7),
)
def test_images_and_labels_that_do_not_fit_are_refused(
    images: torch.Tensor, labels: torch.Tensor, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        ImageData(images, labels, ("a",))


def test_resizing_keeps_constant_images_and_the_mean() -> None:
    grey = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    data = ImageData(grey, torch.zeros(2, dtype=torch.int64), ("a",))
    assert data.resized(8) is data
    for size in (3, 28):
        resized = data.resized(size)
        assert resized.images.shape == (2, 3, size, size)
        assert resized.images.dtype == torch.uint8
        assert (resized.images == 77).all()


def test_to_an_unknown_device_is_refused() -> None:
    assert make().to("cpu").device.type == "cpu"
    with pytest.raises(InputError, match="'gpu'"):
        make().to("gpu")


@pytest.mark.cuda
def test_a_gpu_gives_the_same_pixels_and_the_same_order() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    data = ImageData(every, torch.zeros(256, dtype=torch.int64), ("a",))
    there = data.to("cuda")
    assert torch.equal(there.float().cpu(), data.float())
    assert torch.equal(there.order(3).cpu(), data.order(3))
    pairs = zip(
        data.batches(100, shuffle=True, seed=1),
        there.batches(100, shuffle=True, seed=1),
        strict=True,
    )
    for (x, y), (x_there, y_there) in pairs:
        assert x_there.device.type == y_there.device.type == "cuda"
        assert torch.equal(x, x_there.cpu())
        assert torch.equal(y, y_there.cpu())
    assert torch.equal(there.subset([5, 2]).images.cpu(), data.subset([5, 2]).images)
