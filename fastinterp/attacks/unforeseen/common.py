"""What the unforeseen attacks share: random draws for each image by itself, and checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..._utils.errors import InputError
from ..._utils.require import require_nonnegative

AnySized = TypeVar("AnySized", bound="Sized")


@dataclass(frozen=True)
class Sized:
    """A corruption of one size for all images, so that any part of the batch has the same.

    Attributes:
        eps: the size.
        step_size: of a step of z.
    """

    eps: float
    step_size: float

    def __post_init__(self) -> None:
        require_nonnegative("eps", self.eps)
        require_nonnegative("step_size", self.step_size)

    def rows(self: AnySized, index: Tensor) -> AnySized:
        return self


def draw_each(
    x: Tensor,
    generator: torch.Generator | None,
    draw: Callable[[int, torch.Generator], Tensor],
) -> Tensor:
    """`draw(n, own_generator)` [...] for each image n -> [N, ...] on x's device, in x's dtype.

    Each image has its own generator, seeded by one number from `generator` (None: torch's default
    one). So what an image draws does not depend on the other images of its batch.
    """
    device = torch.device("cpu") if generator is None else generator.device
    seeds = torch.randint(2**32, (len(x),), generator=generator, device=device).tolist()
    own = torch.Generator()
    if not seeds:  # one draw tells the shape
        return draw(0, own)[None][:0].to(x)
    return torch.stack([draw(n, own.manual_seed(seed)) for n, seed in enumerate(seeds)]).to(x)


def uniform(generator: torch.Generator, *size: int) -> Tensor:
    """From [0, 1), float64: one stream of numbers for images of every dtype."""
    return torch.rand(size, generator=generator, dtype=torch.float64)


def require_nchw(
    who: str, x: Tensor, channels: tuple[int, ...] | None = None, side: int = 1
) -> None:
    """Raise unless x is [N, C, H, W] with C among `channels`, and with sides of at least `side`."""
    if x.dim() != 4:
        raise InputError(f"{who}: x must be images [N, C, H, W], got shape {list(x.shape)}.")
    if channels is not None and x.shape[1] not in channels:
        wanted = " or ".join(str(count) for count in channels)
        raise InputError(f"{who}: images must have {wanted} channels, got {x.shape[1]}.")
    if min(x.shape[1:]) < 1 or min(x.shape[2:]) < side:
        raise InputError(
            f"{who}: images must be at least {side}x{side} pixels, got shape {list(x.shape)}."
        )
