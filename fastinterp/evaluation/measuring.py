"""What every measurement shares: checks of its input, batches, verdicts and a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .._utils import processes
from .._utils.errors import InputError
from .._utils.require import (
    require_count,
    require_counts,
    require_integers,
    require_labels,
    require_nonnegative,
    require_numbers,
    require_range,
)
from ..attacks.checks import count_classes, require_images
from ..attacks.modes import convolutions_in
from ..data import ImageData, ImageStream
from ..models.gap import device_of, require_fit

T = TypeVar("T")


def require_measurable(
    who: str, model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1
) -> Tensor:
    """Raise unless a network can be measured on images [N, C_in, H, W] with labels [N].

    Returns:
        The labels as int64, on the images' device.
    """
    _require_images(who, model, images, batch_size)
    return require_classes(who, "labels", labels, images, model)


def _require_images(who: str, model: nn.Module, images: Tensor, batch_size: int) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"{who}: model must be a torch.nn.Module, got {type(model).__name__}.")
    require_count(f"{who}: batch_size", batch_size)
    require_images(who, images, 0.0, 1.0)
    if len(images) == 0:
        raise InputError(f"{who}: there are no images to measure on; pass at least one.")
    require_fit(who, model, images[:1].to(device_of(model, images)), autocast=False)


def require_classes(
    who: str,
    name: str,
    classes: Tensor,
    images: Tensor,
    model: nn.Module,
    count: int | None = None,
) -> Tensor:
    """`classes` [N] as int64 on the images' device, if they are classes of the model.

    `count` is the number of these, if it is known.
    """
    found = require_integers(f"{who}: {name}", classes).to(images.device)
    found = require_labels(who, name, found, images)
    if count is None:
        count = classes_of(who, model, images)
    require_range(who, name, found, count)
    return found


def classes_of(who: str, model: nn.Module, images: Tensor) -> int:
    """The number of the model's classes; one that does not say it is asked for some logits."""
    return count_classes(who, model, images[:1].to(device_of(model, images)), gradient=False)


def require_cells(
    eps: Sequence[float] | float, steps: Sequence[int] | int
) -> list[tuple[float, int]]:
    """(eps, steps) of each cell of a table: for each number of steps, each eps."""
    radii = [require_nonnegative("eps", radius) for radius in require_numbers("eps", eps)]
    counts = require_counts("steps", steps, 0)
    if not radii or not counts:
        raise InputError("eps and steps must hold at least one number each, got none.")
    return [(radius, count) for count, radius in product(counts, radii)]


Source = Tensor | ImageData | ImageStream | Iterable[tuple[Tensor, Tensor]]


class Measured:
    """The images of a measurement, batch by batch: a tensor [N, C_in, H, W] with labels [N], or
    anything that gives pairs (images, labels), such as a DataLoader or `data.stream`.

    Args:
        who: the subject of errors.
        again: the images are read more than once.

    Attributes:
        count: number of images; None where it is not known.
        classes: number of the model's classes; None before images were read.

    Raises:
        InputError: images or labels do not fit the model; those of a loader are checked when they
            come.
    """

    def __init__(
        self,
        who: str,
        model: nn.Module,
        source: Source,
        labels: Tensor | None,
        batch_size: int,
        again: bool = False,
    ) -> None:
        self.who, self.model, self.batch_size = who, model, batch_size
        self.count: int | None
        self.classes: int | None = None
        if isinstance(source, Tensor):
            if labels is None:
                raise InputError(f"{who}: labels are missing; pass the true classes [N].")
            self.labels = self._checked(source, labels)
            self.count = len(source)
        else:
            require_count(f"{who}: batch_size", batch_size)
            if labels is not None:
                raise InputError(f"{who}: a loader has labels of its own; leave labels out.")
            if not isinstance(source, Iterable) or (again and isinstance(source, Iterator)):
                raise InputError(
                    f"{who}: images must be a tensor, or a loader that can be read "
                    f"{'again and again' if again else 'batch by batch'}, "
                    f"got {type(source).__name__}."
                )
            held = isinstance(source, (ImageData, ImageStream))
            self.count = _length(source if held else getattr(source, "dataset", None))
        self.source = source

    def first(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The first images and labels, also in a process that measures none.

        Of a tensor there are `count`, by default a batch; of a loader always its first batch.
        """
        if isinstance(self.source, Tensor):
            some = slice(0, self.batch_size if count is None else count)
            device = device_of(self.model, self.source)
            x, y = (each[some].to(device) for each in (self.source, self.labels))
        elif isinstance(self.source, Iterator):  # it can be read only once
            read: list[Any] = []
            rest = self.source
            x, y = next(self._read(_recorded(rest, read)))[1]
            self.source = chain(read, rest)
        else:
            x, y = next(self._read(self._pairs()))[1]
        return x, y

    def __iter__(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """For each batch: which images it holds, and images and labels on the model's device.

        Of several processes each gets every so many-th batch, see `in_batches`.
        """
        if isinstance(self.source, Tensor):
            device = device_of(self.model, self.source)
            yield from in_batches(self.batch_size, device, self.source, self.labels)
            return
        yield from islice(self._read(self._pairs()), processes.rank(), None, processes.world())

    def _read(self, pairs: Iterable[Any]) -> Iterator[tuple[slice, list[Tensor]]]:
        first = 0
        for batch in pairs:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InputError(f"{self.who}: a loader must give pairs (images, labels).")
            x, y = batch
            if len(x):
                y = self._checked(x, y)
                device = device_of(self.model, x)
                yield slice(first, first + len(x)), [x.to(device), y.to(device)]
            first += len(x)
        if first == 0:
            raise InputError(f"{self.who}: there are no images to measure on; pass at least one.")

    def _checked(self, x: Tensor, y: Tensor) -> Tensor:
        """The labels y of images x, as `require_measurable` gives them."""
        _require_images(self.who, self.model, x, self.batch_size)
        if self.classes is None:
            self.classes = classes_of(self.who, self.model, x)
        return require_classes(self.who, "labels", y, x, self.model, self.classes)

    def _pairs(self) -> Iterable[Any]:
        if isinstance(self.source, (ImageData, ImageStream)):
            return self.source.batches(self.batch_size, seed=0)
        return self.source


def _recorded(batches: Iterator[Any], read: list[Any]) -> Iterator[Any]:
    """The same batches; those that were taken are in `read`."""
    for batch in batches:
        read.append(batch)
        yield batch


def _length(data: object) -> int | None:
    """The length that an object says it has."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:
        return None


def in_batches(
    size: int, device: torch.device, *tensors: Tensor
) -> Iterator[tuple[slice, list[Tensor]]]:
    """For each batch: which images it holds, and the tensors' rows for these on `device`.

    Of several processes each gets every so many-th batch; `all_rows` or `all_batches` then brings
    together what they found. Batches are those of one process, or smaller where there are fewer of
    them than processes.
    """
    images, world = len(tensors[0]), processes.world()
    size = min(size, max(1, -(-images // world)))
    for first in range(processes.rank() * size, images, world * size):
        rows = slice(first, first + size)
        yield rows, [tensor[rows].to(device) for tensor in tensors]


def all_rows(fooled: Tensor) -> Tensor:
    """bool [N] on the CPU: whether any process found an image fooled; each knows of its batches."""
    return processes.add_up(fooled.to(torch.int32)) > 0


def all_images(count: int) -> int:
    """The sum of what the processes counted."""
    return int(processes.add_up(torch.tensor(count)))


def all_batches(found: list[T]) -> list[T]:
    """What all processes found for the batches of `in_batches`, in order."""
    return processes.in_turns(found)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Images x [N, C_in, H, W] -> the likeliest classes [N], in exact float32.

    Raises:
        InputError: a logit is not a finite number; such a network has no accuracy.
    """
    with convolutions_in("float32"):
        logits = model(x)
    if not bool(logits.isfinite().all()):
        raise InputError(
            "The network gives logits that are not finite numbers, so it has no accuracy; its "
            "training diverged or its checkpoint is damaged. Train or download it again."
        )
    predicted: Tensor = logits.argmax(dim=1)
    return predicted


def misclassified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The verdict on images x [N, C_in, H, W] of true classes y [N]: bool [N], see `predict`."""
    return predict(model, x) != y


def accuracy_of(fooled: Tensor) -> float:
    """bool [N] -> the share of images that are not fooled."""
    return int((~fooled).sum()) / len(fooled)


def progress_bar(total: int | None, unit: str, progress: bool) -> Any:
    """A tqdm bar for a `with`; hidden where `progress` is False or stderr is no terminal."""
    from tqdm import tqdm

    shown = progress and processes.rank() == 0
    return tqdm(total=total, unit=unit, disable=None if shown else True)
