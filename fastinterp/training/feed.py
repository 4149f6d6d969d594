"""Training data as batches that can be asked for again: by epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..attacks.checks import require_images, require_labels, require_range
from ..data import ImageData
from ..errors import InputError
from .seeds import derive

Batch = tuple[Tensor, Tensor]
Source = ImageData | tuple[Tensor, Tensor] | DataLoader[Any]


class Feed(Protocol):
    """Batches (x float [B, ...] in [0, 1], y int64 [B]) of a data set.

    Attributes:
        images: in the data set.
        steps: batches in an epoch of training.
        images_per_epoch: how many images those hold.
    """

    images: int
    steps: int
    images_per_epoch: int

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """An epoch's shuffled batches from batch `start` on; a last partial one is left out."""
        ...

    def once(self) -> Iterator[Batch]:
        """Every image once, in order."""
        ...


def make_feed(
    data: Source, batch_size: int, seed: int, num_classes: int, device: torch.device
) -> Feed:
    """Wrap what a user gave.

    Raises:
        InputError: the data are of no kind we know, empty, or labels or pixels are out of range.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}.")
    if isinstance(data, DataLoader):
        return LoaderFeed(data, num_classes)
    if isinstance(data, tuple) and len(data) == 2:
        feed = ArrayFeed(_pair(*data, num_classes=num_classes).to(device), batch_size, seed)
    elif isinstance(data, ImageData):
        feed = ArrayFeed(data.to(device), batch_size, seed)
    else:
        raise InputError(
            "train_data must be an ImageData (fastinterp.data.load), a pair (images, labels) or a "
            f"DataLoader, got {type(data).__name__}."
        )
    require_range("train_data", "labels", feed.data.labels, num_classes)
    return feed


def _pair(images: Tensor, labels: Tensor, num_classes: int) -> ImageData | FloatImages:
    labels = require_labels("train_data", "labels", labels, images)
    if images.dtype == torch.uint8:
        return ImageData(images, labels, tuple(str(label) for label in range(num_classes)))
    require_images("train_data", images, 0.0, 1.0)
    return FloatImages(images, labels)


@dataclass(frozen=True)
class FloatImages:
    """Images that are no bytes, with the part of ImageData's interface that a feed needs."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> FloatImages:
        return FloatImages(self.images.to(device), self.labels.to(device))

    def order(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self), generator=generator).to(self.labels.device)

    def float(self, indices: Tensor) -> Tensor:
        return self.images[indices]


class ArrayFeed:
    """Images that lie on the device. The order of an epoch depends on (seed, epoch) alone."""

    def __init__(self, data: ImageData | FloatImages, batch_size: int, seed: int) -> None:
        self.data, self.seed = data, seed
        self.images = len(data)
        if self.images == 0:
            raise InputError("The training or validation data hold no images.")
        self.batch_size = min(batch_size, self.images)
        self.steps = self.images // self.batch_size
        self.images_per_epoch = self.steps * self.batch_size

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.data.order(derive(self.seed, "order", epoch))
        for batch in torch.split(order, self.batch_size)[start : self.steps]:
            yield self.data.float(batch), self.data.labels[batch]

    def once(self) -> Iterator[Batch]:
        every = torch.arange(self.images, device=self.data.labels.device)
        for batch in torch.split(every, self.batch_size):
            yield self.data.float(batch), self.data.labels[batch]


class LoaderFeed:
    """A DataLoader, which shuffles on its own.

    It cannot be asked for one particular batch, so a run resumed within an epoch goes on with as
    many batches as that epoch still lacked, drawn afresh.
    """

    def __init__(self, loader: DataLoader[Any], num_classes: int) -> None:
        self.loader, self.num_classes = loader, num_classes
        try:
            self.steps = len(loader)
            self.images = len(loader.dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(
                "The DataLoader's length is not known; epochs need a data set with a length."
            ) from error
        self.images_per_epoch = min(self.steps * (loader.batch_size or self.images), self.images)
        if self.steps == 0:
            raise InputError("The training or validation data hold no images.")

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        return islice(self.once(), self.steps - start)

    def once(self) -> Iterator[Batch]:
        for x, y in self.loader:
            y = require_labels("train_data", "labels", y, x)
            require_range("train_data", "labels", y, self.num_classes)
            yield x, y
