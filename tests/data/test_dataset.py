"""ImageData: bytes that live on a device, batches of floats."""

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


def test_iteration_goes_by_128() -> None:
    assert [len(x) for x, _ in make(300)] == [128, 128, 44]
    data = make(3)
    assert [len(x) for x, _ in data] == [len(x) for x, _ in data] == [3]


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


def test_a_seeded_order_leaves_the_global_generator_alone() -> None:
    data = make(10)
    before = torch.get_rng_state()
    data.order(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    first, second = data.order(), data.order()
    torch.manual_seed(1)
    assert torch.equal(data.order(), first)
    assert not torch.equal(first, second)


def test_the_order_of_a_seed_stays_what_it_is() -> None:
    # Resumed and repeated runs depend on it.
    generator = torch.Generator("cpu").manual_seed(5)
    assert torch.equal(make(20).order(5), torch.randperm(20, generator=generator))


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
        ([-1], "0..9"),
        ([0.5], "positions"),
        ([[1]], "positions"),
        ([True, False], "positions"),
        ("abc", "positions"),
    ],
)
def test_positions_that_are_none_are_refused(indices: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make(10).subset(indices)


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


@pytest.mark.parametrize(
    ("indices", "says"),
    [([1000], "0..9"), (torch.tensor([1000]), "0..9"), ("a", "positions"), (3, "positions")],
    ids=str,
)
def test_images_that_are_not_there_are_refused(indices: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make(10).float(indices)


@pytest.mark.parametrize("size", [0, "8", 8.0])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="size must be"):
        make().resized(size)


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_batch_size_that_is_none_is_refused_at_once(size: Any) -> None:
    with pytest.raises(InputError, match="batch_size"):
        make().batches(size)


def test_what_does_not_fit_together_is_refused() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="images must be uint8"):
        ImageData(images.float(), labels, ("a",))
    with pytest.raises(InputError, match="images must be uint8"):
        ImageData(images[0], labels, ("a",))
    with pytest.raises(InputError, match="labels must be int64"):
        ImageData(images, labels[:2], ("a",))
    with pytest.raises(InputError, match="labels must be int64"):
        ImageData(images, labels.int(), ("a",))
    with pytest.raises(InputError, match="same device"):
        ImageData(images, labels.to("meta"), ("a",))


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
