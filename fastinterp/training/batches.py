"""Training data as batches (x float [B, ...] in [0, 1], y int64 [B]): by epoch, from any batch on.

Both kinds have `images`, their number in the data set; `batch_size`, None if the data determine it;
`steps`, the batches in an epoch of training; and `images_per_epoch`, the images in these.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

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


def make_batches(
    data: Source,
    batch_size: int,
    seed: int,
    num_classes: int,
    device: torch.device,
    name: str = "train_data",
) -> Batches:
    """The batches of the data that a user gave.

    Args:
        name: of the argument, for errors.

    Raises:
        InputError: the data are of an unknown kind or empty, or labels or pixels are out of range.
    """
    batch_size = require_count("batch_size", batch_size)
    if isinstance(data, DataLoader):
        return LoaderBatches(data, num_classes, name)
    if isinstance(data, ImageData):
        images, labels = data.images, data.labels
    elif isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            require_images(name, images, 0.0, 1.0)
        labels = require_labels(name, "labels", labels, images)
    else:
        raise InputError(
            f"{name} must be an ImageData (fastinterp.data.load), a tuple (images, labels) or a "
            f"DataLoader, which takes any Dataset, got {type(data).__name__}."
        )
    if len(images) == 0:
        raise InputError(f"{name} holds no images.")
    require_range(name, "labels", labels, num_classes)
    return ArrayBatches(images.to(device), labels.to(device), batch_size, seed)


class ArrayBatches:
    """Images in memory, uint8 or float. The order of an epoch depends only on (seed, epoch)."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        self.pixels, self.labels, self.seed = images, labels, seed
        self.images = len(images)
        self.batch_size: int | None = min(batch_size, self.images)
        self.steps = self.images // min(batch_size, self.images)
        self.images_per_epoch = self.steps * min(batch_size, self.images)
        self.part = slice(0, self.batch_size)  # which images of each batch of an epoch are yielded
        # A tensor: a GPU would multiply by a rounded 1/255 instead of dividing by a number.
        self._white = torch.full((), 255.0, device=images.device)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """An epoch's shuffled batches from batch `start` on, without a last partial one."""
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        order = torch.randperm(self.images, generator=generator).to(self.labels.device)
        return self._batches(order, start, self.steps, self.part)

    def once(self) -> Iterator[Batch]:
        """Every image once, in order."""
        order = torch.arange(self.images, device=self.labels.device)
        return self._batches(order, 0, None, slice(None))

    def first_images(self) -> Tensor:
        """Some images, to see whether a network takes them."""
        return next(self.once())[0]

    def _batches(self, order: Tensor, start: int, stop: int | None, part: slice) -> Iterator[Batch]:
        assert self.batch_size is not None
        for whole in torch.split(order, self.batch_size)[start:stop]:
            indices = whole[part]
            x = self.pixels[indices]
            if x.dtype == torch.uint8:
                x = x.to(torch.float32).div_(self._white)
            yield x, self.labels[indices]


class LoaderBatches:
    """A DataLoader, which shuffles on its own.

    It cannot be asked for a particular batch, so a run resumed within an epoch draws anew as many
    batches as that epoch still needs.
    """

    def __init__(self, loader: DataLoader[Any], num_classes: int, name: str) -> None:
        self.loader, self.num_classes, self.name = loader, num_classes, name
        self.batch_size: int | None = None
        self._checked = False  # the pixels of its first batch
        try:
            self.steps = len(loader)
            self.images = len(loader.dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(
                f"{name}: the DataLoader has no length; give it a data set with a length."
            ) from error
        self.images_per_epoch = min(self.steps * (loader.batch_size or self.images), self.images)
        if self.steps == 0:
            raise InputError(f"{name} holds no images, or fewer than a batch of its DataLoader.")

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        return islice(self.once(), self.steps - start)

    def once(self) -> Iterator[Batch]:
        for batch in self.loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                several = isinstance(batch, (tuple, list))
                got = f"{len(batch)} parts" if several else type(batch).__name__
                raise InputError(
                    f"{self.name}: a batch of the DataLoader must be a pair (images, labels), "
                    f"got {got}."
                )
            x, y = batch
            if not self._checked:  # bytes and normalised images are found in the first batch
                require_images(self.name, x, 0.0, 1.0)
                self._checked = True
            y = require_labels(self.name, "labels", y, x)
            require_range(self.name, "labels", y, self.num_classes)
            yield x, y

    def first_images(self) -> Tensor:
        """A batch's images; torch's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return next(self.once())[0]


Batches = ArrayBatches | LoaderBatches
