"""Training data as batches (x float [B, ...] in [0, 1], y int64 [B]): by epoch, from any batch on.

Every kind has `images`, their number in the data set (None: unknown); `batch_size`, None if the
data determine it; `steps`, the batches in an epoch of training; and `images_per_epoch`, the images
in these (None: unknown).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._utils.errors import InputError
from .._utils.require import require_count, require_labels, require_range
from ..attacks.checks import require_images
from ..data import ImageData, ImageStream, MixedData
from .augment import Augmentation
from .loaders import Batch as Batch
from .loaders import Classes, StreamBatches, number, steps_of_epoch
from .loaders import LoaderBatches as LoaderBatches
from .seeds import derive

Source = (
    ImageData
    | MixedData
    | ImageStream
    | tuple[Tensor, Tensor]
    | DataLoader[Any]
    | Iterable[tuple[Tensor, Tensor]]
)


def make_batches(
    data: Source,
    batch_size: int,
    seed: int,
    num_classes: Classes,
    device: torch.device,
    name: str = "train_data",
    steps: int | None = None,
    augment: Augmentation | None = None,
) -> Batches:
    """The batches of the data that a user gave.

    Args:
        num_classes: of the network.
        name: of the argument, for errors.
        steps: in an epoch of training; None takes as many as the data hold.
        augment: changes the images of training.

    Raises:
        InputError: the data are of an unknown kind or empty, or labels or pixels are out of range;
            they have no length, and no steps are given; augment is for images in memory.
    """
    batch_size = require_count("batch_size", batch_size)
    if steps is not None:
        steps = require_count("steps_per_epoch", steps)
    if augment is not None and not isinstance(data, (ImageData, MixedData, tuple)):
        raise InputError(
            "augment changes images in memory; give a DataLoader's data set, or data.stream, a "
            "transform instead."
        )
    if isinstance(data, ImageStream):
        return StreamBatches(data, batch_size, seed, num_classes, device, name, steps)
    if isinstance(data, DataLoader) or _is_iterable(data):
        return LoaderBatches(data, num_classes, name, steps)
    if isinstance(data, MixedData):
        own = _pair(data.images, num_classes, name)
        extra = _pair(data.extra, num_classes, f"{name}: the extra data")
        images, labels = (part.to(device) for part in own)
        return ArrayBatches(images, labels, batch_size, seed, steps, augment, extra, data.share)
    images, labels = (part.to(device) for part in _pair(data, num_classes, name))
    return ArrayBatches(images, labels, batch_size, seed, steps, augment)


def _is_iterable(data: object) -> bool:
    """Whether it gives batches again and again, as the loaders of other libraries do."""
    kinds = (Tensor, Dataset, str, bytes, list, tuple, dict, Iterator)
    return isinstance(data, Iterable) and not isinstance(data, kinds)


def _pair(data: object, num_classes: Classes, name: str) -> tuple[Tensor, Tensor]:
    """Images uint8 or float in [0, 1], and their labels."""
    if isinstance(data, ImageData):
        images, labels = data.images, data.labels
    elif isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            require_images(name, images, 0.0, 1.0)
        labels = require_labels(name, "labels", labels, images)
    else:
        raise InputError(
            f"{name} must be an ImageData (fastinterp.data.load), an ImageStream "
            "(fastinterp.data.stream), a tuple (images, labels) or a DataLoader, which takes any "
            f"Dataset, got {type(data).__name__}."
        )
    if len(images) == 0:
        raise InputError(f"{name} holds no images.")
    require_range(name, "labels", labels, number(num_classes, images))
    return images, labels


class ArrayBatches:
    """Images in memory, uint8 or float. An epoch depends only on (seed, epoch).

    Args:
        images, labels: on the device that trains.
        steps: in an epoch; None takes every full batch.
        augment: changes the images of training, not those of `once`.
        extra: further images and labels, wherever they lie; drawn at random with replacement.
        share: of the images of a batch, those that come from `extra`. An epoch has the steps that
            it has without them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int,
        steps: int | None = None,
        augment: Augmentation | None = None,
        extra: tuple[Tensor, Tensor] | None = None,
        share: float = 0.0,
    ) -> None:
        self.pixels, self.labels, self.seed = images, labels, seed
        self.images, self.extra = len(images), extra
        size = min(batch_size, self.images)
        self.extra_in_batch = round(share * size)
        self.batch_size: int | None = size
        self.steps = steps_of_epoch(self.images // size, steps)
        self.images_per_epoch = self.steps * size
        self.part = slice(0, size)  # which images of each batch of an epoch are yielded
        self.augment = augment
        # A tensor: a GPU would multiply by a rounded 1/255 instead of dividing by a number.
        self._white = torch.full((), 255.0, device=images.device)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """An epoch's shuffled batches from batch `start` on, without a last partial one."""
        assert self.batch_size is not None
        size, device = self.batch_size, self.labels.device
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        order = torch.randperm(self.images, generator=generator).to(device)
        change = None
        if self.augment is not None:
            change = self.augment.epoch(epoch, self.images_per_epoch, device)
        own, more = size - self.extra_in_batch, self._extra_order(epoch)
        for step in range(start, self.steps):
            x, y = self._rows(self.pixels, self.labels, order[step * own :][:own][self.part])
            if self.extra is not None:
                # The extra images come after the own ones; `part` may begin or end among them.
                part = slice(max(self.part.start - own, 0), max(self.part.stop - own, 0))
                drawn = more[step * self.extra_in_batch :][: self.extra_in_batch][part]
                further = self._rows(*self.extra, drawn)
                x = torch.cat([x, further[0].to(x.dtype)])
                y = torch.cat([y, further[1]])
            yield (x if change is None else change(x, step * size + self.part.start)), y

    def once(self) -> Iterator[Batch]:
        """Every image once, in order."""
        assert self.batch_size is not None
        for first in range(0, self.images, self.batch_size):
            yield self._rows(self.pixels, self.labels, slice(first, first + self.batch_size))

    def first_images(self) -> Tensor:
        """Some images, to see whether a network takes them."""
        return next(self.once())[0]

    def _extra_order(self, epoch: int) -> Tensor:
        """Positions of an epoch's extra images, on their device."""
        if self.extra is None:
            return torch.empty(0)
        generator = torch.Generator().manual_seed(derive(self.seed, "extra", epoch))
        count = self.steps * self.extra_in_batch
        order = torch.randint(len(self.extra[0]), (count,), generator=generator)
        return order.to(self.extra[0].device)

    def _rows(self, pixels: Tensor, labels: Tensor, rows: Tensor | slice) -> Batch:
        """Some images as floats, on the device that trains."""
        x, y = pixels[rows], labels[rows]
        if x.device != self.labels.device:
            x, y = (part.to(self.labels.device, non_blocking=True) for part in (x, y))
        if x.dtype == torch.uint8:
            x = x.to(torch.float32).div_(self._white)
        return x, y


Batches = ArrayBatches | LoaderBatches | StreamBatches
