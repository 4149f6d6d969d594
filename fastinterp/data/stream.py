"""Labelled images that are read from their files when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import require_memory
from .._utils.require import require_count, require_one_of, require_seed, require_whole
from .dataset import Indices, positions
from .imagefolder import read_rgb, squeeze

Transform = Callable[[Image.Image], Any]
Usual = Literal["whole", "center-crop", "random-crop"]


@dataclass(frozen=True, eq=False)
class ImageStream(Dataset[tuple[Tensor, int]]):
    """Images with labels, read from their files batch by batch; `data.stream` makes one.

    Memory holds the names of the files and a few batches. `Trainer.fit`, `evaluation.sweep` and
    torch's DataLoader take it.

    Attributes:
        files: of the images [N].
        labels: int64 [N].
        classes: the name of each class.
        transform: a picture -> a tensor [C, H, W], bytes or floating point in [0, 1]. Its random
            numbers come from torch.
        name: of the data set.
        workers: processes that read and transform images; 0 reads in this process.
    """

    files: Sequence[str]
    labels: Tensor
    classes: tuple[str, ...]
    transform: Transform
    name: str = "images"
    workers: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image at a position, float [C, H, W] in [0, 1], and its label."""
        position = require_whole("ImageStream: a position (use subset for several)", index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"ImageStream holds {len(self)} images, got position {position}.")
        return as_floats(self.read(position)), int(self.labels[position])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches(128)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        """C of the images, from the first one."""
        return int(self.read(0).shape[0])

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def read(self, position: int) -> Tensor:
        """An image [C, H, W] as the transform gives it.

        Raises:
            InputError: the file is damaged, or the transform gives no such tensor.
        """
        image = self.transform(read_rgb(Path(self.files[position])))
        floats = isinstance(image, Tensor) and image.is_floating_point()
        if not isinstance(image, Tensor) or image.dim() != 3:
            got = f"shape {list(image.shape)}" if isinstance(image, Tensor) else type(image)
            raise InputError(
                f"The transform of {self.name} must give tensors [C, H, W], got {got}; end it with "
                "torchvision.transforms.v2.PILToTensor()."
            )
        if image.dtype != torch.uint8 and not floats:
            raise InputError(
                f"The transform of {self.name} must give uint8, or floats in [0, 1], "
                f"got {image.dtype}."
            )
        return image.as_subclass(Tensor)

    def subset(self, indices: Indices) -> ImageStream:
        """The images at these positions, in that order; see `ImageData.subset`."""
        chosen = torch.arange(len(self))
        if isinstance(indices, slice):
            chosen = chosen[indices]
        else:
            chosen = positions("ImageStream", indices, len(self))
        files = [self.files[position] for position in chosen.tolist()]
        return replace(self, files=files, labels=self.labels[chosen])

    def float(self, indices: Indices | None = None) -> Tensor:
        """Images as float [M, C, H, W] in [0, 1], all in memory.

        Raises:
            InputError: a position is beyond the data, or memory does not hold the images.
        """
        wanted = self if indices is None else self.subset(indices)
        if len(wanted) == 0:
            return torch.empty(0, *self[0][0].shape)
        first = wanted[0][0]
        require_memory(
            2 * len(wanted) * first.numel() * first.element_size(),
            f"A tensor of {len(wanted)} images of {self.name}",
            "use fewer images, or evaluate the stream itself batch by batch",
        )
        return torch.cat([x for x, _ in wanted.batches(64, seed=0)])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        start: int = 0,
        part: slice = slice(None),
        device: str | torch.device = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over (x float [B, C, H, W] in [0, 1], y int64 [B]).

        The order, and what a random transform does to each image, depend on the seed alone, not on
        the number of workers.

        Args:
            batch_size: images in a batch; the last batch holds the rest.
            shuffle: take the images in a random order.
            seed: of the order and of the transforms; None: from torch's global generator.
            drop_last: leave out a last batch that is not full.
            start: leave out so many batches at the beginning; their files are not read.
            part: which images of each batch are read, the others being another process's.
            device: where to put the batches. Bytes become floats there.

        Raises:
            InputError: batch_size is not a whole number >= 1, or a file is damaged.
        """
        batch_size = require_count("batches: batch_size", batch_size)
        device = usable_device(device)
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        seed = require_seed("batches: seed", seed) % 2**63
        order = torch.arange(len(self))
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        end = len(self) - len(self) % batch_size if drop_last else len(self)
        firsts = range(start * batch_size, end, batch_size)
        loader: DataLoader[Any] = DataLoader(
            _Seeded(self, seed),
            batch_sampler=[order[first : first + batch_size][part].tolist() for first in firsts],
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(seed),  # leaves torch's own alone
        )
        return self._floats(loader, device)

    def _floats(
        self, loader: DataLoader[Any], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        try:
            for x, y in loader:
                yield as_floats(x.to(device, non_blocking=True)), y.to(device, non_blocking=True)
        except InputError as error:  # one of a worker has its traceback before it
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


class _Seeded(Dataset[tuple[Tensor, int]]):
    """The images of a stream, whose random transforms depend on (seed, position) alone."""

    def __init__(self, stream: ImageStream, seed: int) -> None:
        self.stream, self.seed = stream, seed

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        own = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(own))
            return self.stream.read(position), int(self.stream.labels[position])


def as_floats(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; floats as they are."""
    if images.dtype != torch.uint8:
        return images
    # A tensor: a GPU would multiply by a rounded 1/255 instead of dividing by a number.
    return images.to(torch.float32).div_(torch.full((), 255.0, device=images.device))


def usual_transform(kind: str, size: int) -> Transform:
    """A transform by name, in torchvision's transforms v2.

    Args:
        kind: "whole": the whole picture, squeezed into size x size, as `data.load` does.
            "center-crop": the shorter side to 8/7 of size, then the middle. "random-crop": a random
            part of the picture, mirrored at random, as ImageNet is trained on.
        size: height and width.
    """
    require_one_of("transform", kind, ("whole", "center-crop", "random-crop"))
    if kind == "whole":
        return Squeeze(size)
    from torchvision.transforms import v2

    steps = [v2.Resize(round(size * 8 / 7), antialias=True), v2.CenterCrop(size)]
    if kind == "random-crop":
        steps = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    return v2.Compose([*steps, v2.PILToTensor()])  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Squeeze:
    """A picture -> uint8 [3, size, size], whatever its shape was."""

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        return squeeze(image, self.size)
