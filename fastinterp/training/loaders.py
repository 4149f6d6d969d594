"""Training data that come batch by batch: a DataLoader, or a stream of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_labels, require_range
from ..attacks.checks import require_images
from ..data import ImageStream
from .seeds import derive

Batch = tuple[Tensor, Tensor]
Classes = int | Callable[[Tensor], int]
"""C, or a function that finds it with some of the images [N, ...]."""


def number(classes: Classes, images: Tensor) -> int:
    """C."""
    return classes if isinstance(classes, int) else classes(images)


class LoaderBatches:
    """A DataLoader, or another iterable of batches, which shuffles on its own.

    It cannot be asked for a particular batch, so a run resumed within an epoch draws anew as many
    batches as that epoch still needs. With `steps` an epoch goes on where the one before ended, and
    the loader begins again when it is exhausted.
    """

    def __init__(
        self, loader: Any, num_classes: Classes, name: str, steps: int | None = None
    ) -> None:
        self.loader, self.num_classes, self.name = loader, num_classes, name
        self.batch_size: int | None = None
        self._checked = False  # the pixels of its first batch
        self._asked = steps is not None
        self._going: Iterator[Batch] = iter(())
        length, self.images = _length(loader), _length(getattr(loader, "dataset", None))
        if steps is None and length is None and name == "train_data":
            raise InputError(
                f"{name} has no length; say how many batches are an epoch by steps_per_epoch=."
            )
        if length == 0:
            raise InputError(f"{name} holds no images, or fewer than a batch of its DataLoader.")
        self.steps = steps or length or 1
        size = getattr(loader, "batch_size", None)
        self.images_per_epoch = None if size is None else self.steps * int(size)
        if not self._asked and self.images is not None:
            self.images_per_epoch = min(self.images_per_epoch or self.images, self.images)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        for part in ("sampler", "batch_sampler", "dataset"):  # as those of several processes
            set_epoch = getattr(getattr(self.loader, part, None), "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)
        if not self._asked:
            return islice(self.once(), self.steps - start)
        return (self._next() for _ in range(start, self.steps))

    def _next(self) -> Batch:
        """The next batch; from a new pass where the last one is over."""
        found = next(self._going, None)
        if found is None:
            self._going = self.once()
            found = next(self._going, None)
        if found is None:
            raise InputError(f"{self.name}: the loader gave no batch; give it images.")
        return found

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
            require_range(self.name, "labels", y, number(self.num_classes, x))
            yield x, y

    def first_images(self) -> Tensor:
        """A batch's images; torch's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            for x, _ in self.once():
                return x
        raise InputError(f"{self.name}: the loader gave no batch; give it images.")


class StreamBatches:
    """Images that are read from files by `ImageStream`. An epoch depends only on (seed, epoch)."""

    def __init__(
        self,
        stream: ImageStream,
        batch_size: int,
        seed: int,
        num_classes: Classes,
        device: torch.device,
        name: str,
        steps: int | None = None,
    ) -> None:
        self.stream, self.seed, self.device, self.name = stream, seed, device, name
        self.images = len(stream)
        if self.images == 0:
            raise InputError(f"{name} holds no images.")
        if not isinstance(num_classes, int):
            num_classes = num_classes(next(iter(stream.batches(1, seed=0)))[0])
        require_range(name, "labels", stream.labels, num_classes)
        size = min(batch_size, self.images)
        self.batch_size: int | None = size
        self.steps = steps_of_epoch(self.images // size, steps)
        self.images_per_epoch = self.steps * size
        self.part = slice(0, size)  # which images of each batch of an epoch are read
        self._checked = False  # the pixels of its first batch: a transform may normalise

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        seed = derive(self.seed, "order", epoch)
        return islice(self._batches(True, seed, start, self.part), self.steps - start)

    def once(self) -> Iterator[Batch]:
        """Every image once, in order."""
        return self._batches(False, self.seed, 0, slice(None))

    def _batches(self, shuffle: bool, seed: int, start: int, part: slice) -> Iterator[Batch]:
        assert self.batch_size is not None
        batches = self.stream.batches(
            self.batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=shuffle,
            start=start,
            part=part,
            device=self.device,
        )
        for x, y in batches:
            if not self._checked:
                require_images(self.name, x, 0.0, 1.0)
                self._checked = True
            yield x, y

    def first_images(self) -> Tensor:
        """An image, to see whether a network takes it."""
        return self.stream.float(slice(0, 1))


def steps_of_epoch(most: int, asked: int | None) -> int:
    """The steps that are asked for, at most as many as the data hold full batches."""
    if asked is not None and asked > most:
        raise InputError(
            f"steps_per_epoch must be at most {most}, the full batches of train_data, got {asked}; "
            "train for more epochs instead."
        )
    return most if asked is None else asked


def _length(data: object) -> int | None:
    """The length that an object says it has."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:
        return None
