"""Training images beside generated ones, in a fixed share of each batch."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._utils.errors import InputError
from .._utils.files import require_memory, usable_file
from .._utils.require import require_number
from .dataset import ImageData, from_arrays

_IMAGES, _LABELS = ("image", "images", "x"), ("label", "labels", "y")


@dataclass(frozen=True, eq=False)
class MixedData:
    """Training images and further ones, such as those of a diffusion model.

    Gowal et al. (2021), Rebuffi et al. (2021) and Wang et al. (2023) train so on CIFAR-10 with a
    share of 0.7 or 0.8. An epoch has as many batches as without the further images; each batch
    holds round(share x batch size) of these, drawn at random with replacement.

    Attributes:
        images: the training images.
        extra: the further ones; they stay where they are, and only batches of them are moved.
        share: of a batch, at least 0 and below 1.

    Raises:
        InputError: the two do not fit together, or the share is out of its range.
    """

    images: ImageData
    extra: ImageData
    share: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= require_number("share", self.share) < 1:
            raise InputError(f"share must be at least 0 and below 1, got {self.share}.")
        own, more = self.images.images.shape[1:], self.extra.images.shape[1:]
        if own != more:
            raise InputError(
                f"The extra images must have the shape of the training images, {list(own)}, "
                f"got {list(more)}."
            )
        if len(self.extra) == 0:
            raise InputError("The extra data hold no images.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return self.images.num_classes

    @property
    def channels(self) -> int:
        return self.images.channels


def mix(images: ImageData, extra: ImageData | str | Path, share: float = 0.7) -> MixedData:
    """Training data with extra images in each batch; see `MixedData`.

    Args:
        images: the training images.
        extra: further images with labels, or an .npz file of them; see `read_npz`.
        share: of a batch.

    Raises:
        InputError: the file cannot be read, or the two do not fit together.
    """
    if not isinstance(extra, ImageData):
        extra = read_npz(extra, images)
    return MixedData(images, extra, share)


def read_npz(path: str | Path, like: ImageData) -> ImageData:
    """Generated images and labels from an .npz file, as their authors publish them.

    Args:
        path: holds "image" (or "images", "x"), uint8 [N, H, W, C] or [N, C, H, W], and "label" (or
            "labels", "y"), [N].
        like: gives the names of the classes.

    Raises:
        InputError: the file is damaged or holds something else, or does not fit into memory.
    """
    path = usable_file(path)
    expected = "an .npz file with image (uint8 [N, H, W, C] or [N, C, H, W]) and label (N integers)"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        require_memory(2 * size, f"The file {path}", "use a smaller file")
        with np.load(path, allow_pickle=False) as file:
            names = [next((n for n in known if n in file), None) for known in (_IMAGES, _LABELS)]
            found = [None if name is None else file[name] for name in names]
    except InputError:
        raise
    except Exception as error:  # zip and npy files can be damaged in many ways
        raise InputError(f"Cannot read {path}: {error}; expected {expected}.") from error
    images, labels = found
    if images is None or labels is None or images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"{path} does not hold generated images: expected {expected}.")
    if images.shape[3] == like.channels and images.shape[1] != like.channels:
        images = images.transpose(0, 3, 1, 2)
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path} holds {len(images)} images, but labels {list(labels.shape)} of "
            f"{labels.dtype}: expected {expected}."
        )
    return from_arrays(images, labels, like.classes, path.stem)
