"""Labelled images as bytes on one device, where batches of them become floats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import require_count, require_range, require_seed, require_whole

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

Indices = Tensor | NDArray[Any] | Sequence[int] | slice


@dataclass(frozen=True, eq=False)
class ImageData(Dataset[tuple[Tensor, int]]):
    """Images with labels, all of them in memory.

    It is a `torch.utils.data.Dataset` of (image, label), so that
    `DataLoader(data, batch_size=50, shuffle=True)` works; its own `batches` are faster.

    Attributes:
        images: uint8 [N, C, H, W], 0 to 255.
        labels: int64 [N], on the same device.
        classes: the name of each class.
        name: of the data set.

    Raises:
        InputError: shapes, dtypes, devices or labels do not fit.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise InputError(
                "ImageData: images must be uint8 [N, C, H, W], "
                f"got {self.images.dtype} {list(self.images.shape)}."
            )
        if 0 in self.images.shape[1:]:
            raise InputError(f"ImageData: images must have pixels, got {list(self.images.shape)}.")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"ImageData: labels must be int64 [N] = [{len(self.images)}], "
                f"got {self.labels.dtype} {list(self.labels.shape)}."
            )
        if self.labels.device != self.images.device:
            raise InputError(
                "ImageData: images and labels must be on the same device, "
                f"got {self.images.device} and {self.labels.device}."
            )
        require_range(f"The data set {self.name!r}", "labels", self.labels, len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image at a position, float32 [C, H, W] in [0, 1], and its label.

        Raises:
            InputError: `index` is not a whole number.
            IndexError: the position is beyond the data.
        """
        position = require_whole("ImageData: a position (use subset for several)", index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"ImageData holds {len(self)} images, got position {position}.")
        position %= len(self)
        return self.float(slice(position, position + 1))[0], int(self.labels[position])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches(128)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        """C of the images."""
        return int(self.images.shape[1])

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: str | torch.device) -> ImageData:
        """The same data on another device."""
        device = usable_device(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def subset(self, indices: Indices) -> ImageData:
        """The images at these positions, in that order.

        Args:
            indices: positions 0..N-1 as a tensor, array or list; a boolean mask [N]; or a slice.

        Raises:
            InputError: a position is beyond the data.
        """
        chosen = indices if isinstance(indices, slice) else self._positions(indices)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def float(self, indices: Indices | None = None) -> Tensor:
        """Images as float32 [M, C, H, W] in [0, 1].

        Args:
            indices: as for `subset`; None: all images.

        Raises:
            InputError: a position is beyond the data. Where images and an int64 tensor lie on a GPU
                its values are not checked, because that would wait for the GPU.
        """
        chosen = self.images
        if isinstance(indices, Tensor) and indices.is_cuda and chosen.is_cuda:
            quick = indices.dtype == torch.int64 and indices.dim() == 1
            chosen = chosen[indices if quick else self._positions(indices)]
        elif indices is not None:
            chosen = chosen[indices if isinstance(indices, slice) else self._positions(indices)]
        # Divide by a tensor: for a Python number a GPU multiplies by a rounded 1/255, and its
        # pixels would differ from those of a CPU.
        return chosen.to(torch.float32).div_(torch.full((), 255.0, device=self.device))

    def _positions(self, indices: Tensor | NDArray[Any] | Sequence[int]) -> Tensor:
        """Positions [M] within the data, on its device."""
        return positions("ImageData", indices, len(self)).to(self.device)

    def order(self, seed: int | None = None) -> Tensor:
        """A permutation of the positions, int64 [N] on the data's device.

        It is drawn on the CPU, so that a seed gives the same order on every device. None: from
        torch's global generator.
        """
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(require_seed("order: seed", seed))
        return torch.randperm(len(self), generator=generator).to(self.device)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over (x float32 [B, C, H, W] in [0, 1], y int64 [B]).

        Args:
            batch_size: images in a batch; the last batch holds the rest.
            shuffle: take the images in the order of `order(seed)` instead of 0..N-1.
            seed: of the order; None: from torch's global generator.
            drop_last: leave out a last batch that is not full.

        Raises:
            InputError: batch_size is not a whole number >= 1.
        """
        batch_size = require_count("batches: batch_size", batch_size)
        end = len(self) - len(self) % batch_size if drop_last else len(self)
        starts = range(0, end, batch_size)
        if not shuffle:
            parts: Iterator[slice | Tensor] = (slice(s, s + batch_size) for s in starts)
        else:
            order = self.order(seed)
            parts = (order[s : s + batch_size] for s in starts)
        return ((self.float(part), self.labels[part]) for part in parts)

    def resized(self, size: int) -> ImageData:
        """The images resized to `size` x `size` pixels (bilinear, antialiased).

        Raises:
            InputError: size is not a whole number >= 1.
        """
        size = require_count("resized: size", size)
        if self.images.shape[2:] == (size, size):
            return self
        images = F.interpolate(self.images.float(), (size, size), mode="bilinear", antialias=True)
        return replace(self, images=images.round_().clamp_(0, 255).to(torch.uint8))


def positions(who: str, indices: Tensor | NDArray[Any] | Sequence[int], count: int) -> Tensor:
    """Positions or a mask of `count` images -> int64 [M].

    Raises:
        InputError: they are neither, or a position is beyond the images.
    """
    try:
        chosen = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError):
        chosen = torch.empty(0, 0)
    if chosen.dtype == torch.bool and chosen.shape == (count,):
        chosen = chosen.nonzero().squeeze(1)
    if chosen.numel() == 0 and chosen.dim() == 1:
        chosen = chosen.long()  # torch makes floats of an empty list
    if chosen.dim() != 1 or chosen.dtype not in _INTEGERS:
        raise InputError(
            f"{who}: positions must be whole numbers [M] (a tensor, array or list), "
            f"a mask [{count}] or a slice, got {type(indices).__name__}."
        )
    if bool(((chosen < 0) | (chosen >= count)).any()):
        raise InputError(
            f"{who}: positions must lie in 0..{count - 1}, "
            f"got {int(chosen.min())}..{int(chosen.max())}."
        )
    return chosen.to(torch.int64)


def from_arrays(
    images: NDArray[np.uint8], labels: NDArray[Any], classes: Sequence[str], name: str
) -> ImageData:
    """An ImageData of images [N, C, H, W] or [N, H, W] and labels [N] of any integer type."""
    pixels = torch.from_numpy(np.array(images))
    if pixels.dim() == 3:
        pixels = pixels[:, None]
    return ImageData(pixels, torch.from_numpy(labels.astype(np.int64)), tuple(classes), name)
