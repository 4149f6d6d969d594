"""Training data as batches that can be asked for again: by epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .._utils.errors import InputError
from .._utils.require import require_count, require_labels, require_range
from ..attacks.checks import require_images
from ..data import ImageData
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

    def look(self) -> Tensor:
        """Some images, drawn only to see whether they can be used."""
        ...


def make_feed(
    data: Source,
    batch_size: int,
    seed: int,
    num_classes: int,
    device: torch.device,
    name: str = "train_data",
) -> Feed:
    """Wrap what a user gave.

    Args:
        name: what the user knows the data by, for errors.

    Raises:
        InputError: the data are of no kind we know, empty, or labels or pixels are out of range.
    """
    batch_size = require_count("batch_size", batch_size)
    if isinstance(data, DataLoader):
        return LoaderFeed(data, num_classes, name)
    if isinstance(data, tuple) and len(data) == 2:
        pair = _pair(name, *data, num_classes=num_classes)
        feed = ArrayFeed(pair.to(device), batch_size, seed, name)
    elif isinstance(data, ImageData):
        feed = ArrayFeed(data.to(device), batch_size, seed, name)
    else:
        raise InputError(
            f"{name} must be an ImageData (fastinterp.data.load), a tuple (images, labels) or a "
            f"DataLoader, which takes any Dataset, got {type(data).__name__}."
        )
    require_range(name, "labels", feed.data.labels, num_classes)
    return feed


def _pair(name: str, images: Tensor, labels: Tensor, num_classes: int) -> ImageData | FloatImages:
    as_bytes = isinstance(images, Tensor) and images.dtype == torch.uint8
    if not as_bytes:
        require_images(name, images, 0.0, 1.0)
    labels = require_labels(name, "labels", labels, images)
    if as_bytes:
        return ImageData(images, labels, tuple(str(label) for label in range(num_classes)))
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

    def __init__(
        self, data: ImageData | FloatImages, batch_size: int, seed: int, name: str = "train_data"
    ) -> None:
        self.data, self.seed = data, seed
        self.images = len(data)
        if self.images == 0:
            raise InputError(f"{name} holds no images.")
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

    def look(self) -> Tensor:
        return next(self.once())[0]


class LoaderFeed:
    """A DataLoader, which shuffles on its own.

    It cannot be asked for one particular batch, so a run resumed within an epoch goes on with as
    many batches as that epoch still lacked, drawn afresh.
    """

    def __init__(self, loader: DataLoader[Any], num_classes: int, name: str = "train_data") -> None:
        self.loader, self.num_classes, self.name = loader, num_classes, name
        self.looked_at = False  # whether a batch of it was, for its pixels
        try:
            self.steps = len(loader)
            self.images = len(loader.dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(
                "The DataLoader's length is not known; epochs need a data set with a length."
            ) from error
        self.images_per_epoch = min(self.steps * (loader.batch_size or self.images), self.images)
        if self.steps == 0:
            raise InputError(f"{name} holds no images, or fewer than a batch of its DataLoader.")

    def look(self) -> Tensor:
        """A batch's images. Torch's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return next(self.once())[0]

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        return islice(self.once(), self.steps - start)

    def once(self) -> Iterator[Batch]:
        for batch in self.loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InputError(
                    f"{self.name}: a batch of the DataLoader must be a pair (images, labels), "
                    f"got {_shape(batch)}."
                )
            x, y = batch
            if not self.looked_at:  # one look finds bytes and normalised images, at no cost
                require_images(self.name, x, 0.0, 1.0)
                self.looked_at = True
            y = require_labels(self.name, "labels", y, x)
            require_range(self.name, "labels", y, self.num_classes)
            yield x, y


def _shape(batch: object) -> str:
    """What something is, in a few words."""
    if isinstance(batch, Tensor):
        return f"a tensor of shape {list(batch.shape)}"
    if isinstance(batch, (tuple, list)):
        return f"{len(batch)} parts"
    return f"a {type(batch).__name__}"
