"""Random changes of training images on their device, decided by the run's seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .._utils.errors import InputError
from ..attacks.checks import require_images
from .seeds import derive

Augment = Literal["crop-flip"] | Callable[[Tensor], Tensor]
EpochAugment = Callable[[Tensor, int], Tensor]  # x [B, C, H, W], position of its first -> x


class Augmentation:
    """`augment` of `Trainer.fit`: crop-flip, or a function of a batch.

    Args:
        augment: "crop-flip", or images [B, C, H, W] in [0, 1] -> such images. Random numbers of a
            function come from torch's default generators, which are seeded before each batch and
            restored after it.
        seed: of the run.

    Raises:
        InputError: it is neither.
    """

    def __init__(self, augment: Augment, seed: int) -> None:
        if augment != "crop-flip" and not callable(augment):
            raise InputError(
                'augment must be "crop-flip", a function from images to images, or None, '
                f"got {augment!r}."
            )
        self.augment, self.seed = augment, seed
        self._checked = False

    @property
    def name(self) -> str:
        """What a run's settings record."""
        if isinstance(self.augment, str):
            return self.augment
        return str(getattr(self.augment, "__qualname__", type(self.augment).__qualname__))

    def epoch(self, epoch: int, images: int, device: torch.device) -> EpochAugment:
        """What changes the batches of an epoch of so many images."""
        augment = self.augment
        if not isinstance(augment, str):
            return lambda x, first: self._call(augment, x, epoch, first)
        generator = torch.Generator().manual_seed(derive(self.seed, "augment", epoch))
        draws = torch.rand(3, images, generator=generator).to(device)  # one copy for an epoch
        return lambda x, first: crop_flip(x, draws[:, first : first + len(x)])

    def _call(self, augment: Callable[[Tensor], Any], x: Tensor, epoch: int, first: int) -> Tensor:
        seed = derive(self.seed, f"augment {epoch}", first)
        on_gpu = x.device.type == "cuda"
        with torch.random.fork_rng(devices=[x.device] if on_gpu else []):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            changed = augment(x)
        if not self._checked:
            if not isinstance(changed, Tensor) or changed.shape[:2] != x.shape[:2]:
                shown = isinstance(changed, Tensor)
                got = f"shape {list(changed.shape)}" if shown else type(changed).__name__
                raise InputError(
                    f"augment must return as many images as it is given, {list(x.shape)}, "
                    f"got {got}."
                )
            require_images("augment", changed, 0.0, 1.0)
            self._checked = True
        return changed  # type: ignore[no-any-return]


def crop_flip(x: Tensor, draws: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its size, and mirror half of them.

    It is the usual augmentation of CIFAR-10: pad 4 black pixels, crop 32x32, flip left and right.

    Args:
        x: images [B, C, H, W].
        draws: numbers in [0, 1), [3, B]: of the rows, the columns and the flips.
    """
    height, width = x.shape[2:]
    top, left = height // 8, width // 8
    padded = F.pad(x, (left, left, top, top))
    rows = (draws[0] * (2 * top + 1)).long()[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(len(x), width)
    columns = torch.where(draws[2, :, None] < 0.5, columns, width - 1 - columns)
    columns = columns + (draws[1] * (2 * left + 1)).long()[:, None]
    index = torch.arange(len(x), device=x.device)[:, None, None]
    # Indices around a slice put the channels last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
