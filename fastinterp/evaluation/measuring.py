"""What every measurement shares: checks of its input, batches, verdicts and a progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
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
from ..attacks.checks import require_images
from ..attacks.modes import convolutions_in
from ..models.gap import GapClassifier, require_fit, require_gap

T = TypeVar("T")


def require_measurable(
    who: str, model: GapClassifier, images: Tensor, labels: Tensor, batch_size: int = 1
) -> Tensor:
    """Raise unless a network can be measured on images [N, C_in, H, W] with labels [N].

    Returns:
        The labels as int64, on the images' device.
    """
    require_gap(who, model)
    require_count(f"{who}: batch_size", batch_size)
    require_images(who, images, 0.0, 1.0)
    if len(images) == 0:
        raise InputError(f"{who}: there are no images to measure on; pass at least one.")
    require_fit(who, model, images[:1].to(model.device), autocast=False)
    return require_classes(who, "labels", labels, images, model)


def require_classes(
    who: str, name: str, classes: Tensor, images: Tensor, model: GapClassifier
) -> Tensor:
    """`classes` [N] as int64 on the images' device, if they are classes of the model."""
    found = require_integers(f"{who}: {name}", classes).to(images.device)
    found = require_labels(who, name, found, images)
    require_range(who, name, found, model.num_classes)
    return found


def require_cells(
    eps: Sequence[float] | float, steps: Sequence[int] | int
) -> list[tuple[float, int]]:
    """(eps, steps) of each cell of a table: for each number of steps, each eps."""
    radii = [require_nonnegative("eps", radius) for radius in require_numbers("eps", eps)]
    counts = require_counts("steps", steps, 0)
    if not radii or not counts:
        raise InputError("eps and steps must hold at least one number each, got none.")
    return [(radius, count) for count, radius in product(counts, radii)]


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


def progress_bar(total: int, unit: str, progress: bool) -> Any:
    """A tqdm bar for a `with`; hidden where `progress` is False or stderr is no terminal."""
    from tqdm import tqdm

    shown = progress and processes.rank() == 0
    return tqdm(total=total, unit=unit, disable=None if shown else True)
