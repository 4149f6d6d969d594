"""Fog attack: fractal fog whose randomness is optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..threats import Threat
from .attack import SizedAttack
from .common import Sized, draw_each, require_nchw, uniform

DECAY = 2.0  # each finer level of the fog is so much weaker


@dataclass(frozen=True)
class FogThreat(Sized):
    """Fog made by the diamond-square algorithm (Kang et al., 2019).

    The algorithm refines a periodic map of side S, the least power of two above both of the image's
    sides, from one point, each new point being the mean of four old ones plus a random number. The
    S^2 - 1 random numbers, in [0, 1], are z. The map is scaled to [0, 1] and its middle is laid on
    the image: x' = (x + eps fog) / (max x + eps), with the maximum of each channel.

    Attributes:
        eps: density, in pixels of 255.
        step_size: of a random number; Kang et al. take that of eps, which makes them 0 or 1.
    """

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """z uniform in [0, 1], drawn for each image by itself; there is no other start.

        Raises:
            InputError: x is not [N, C, H, W].
        """
        require_nchw("Fog", x)
        count = _side(x) ** 2 - 1
        return draw_each(x, generator, lambda n, own: uniform(own, count))

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return (z + self.step_size * grad.sign()).clamp(0, 1)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        side = _side(x)
        fog = _diamond_square(z, side)
        low, high = fog.amin(dim=(1, 2), keepdim=True), fog.amax(dim=(1, 2), keepdim=True)
        fog = ((fog - low) / (high - low).clamp(min=1e-12))[:, None]
        top, left = (side - x.shape[2]) // 2, (side - x.shape[3]) // 2
        fog = fog[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        density = self.eps / 255
        brightest = x.amax(dim=(2, 3), keepdim=True)
        if density == 0:
            return x + 0 * fog
        return ((x + density * fog) / (brightest + density)).clamp(0, 1)


def _side(x: Tensor) -> int:
    """The least power of two above the sides of images [N, C, H, W]."""
    return 1 << max(x.shape[2:]).bit_length()


def _diamond_square(z: Tensor, side: int) -> Tensor:
    """Random numbers z [N, side^2 - 1] in [0, 1] -> maps [N, side, side]."""
    grid = z.new_zeros(len(z), 1, 1)
    amplitude, used = 1.0, 0
    while grid.shape[1] < side:
        size = grid.shape[1]
        own = z[:, used : used + 3 * size**2].view(-1, 3, size, size)
        middle, over, left = (amplitude * (2 * own - 1)).unbind(dim=1)
        # The middle of four old points; then points between two old ones and two middles.
        below = grid + grid.roll(-1, 1)
        middle = middle + (below + below.roll(-1, 2)) / 4
        over = over + (grid + grid.roll(-1, 2) + middle + middle.roll(1, 1)) / 4
        left = left + (below + middle + middle.roll(1, 2)) / 4
        rows = torch.stack([torch.stack([grid, over], -1), torch.stack([left, middle], -1)], 2)
        grid = rows.reshape(-1, 2 * size, 2 * size)
        amplitude, used = amplitude / DECAY, used + 3 * size**2
    return grid


class Fog(SizedAttack):
    """Fog attack (Kang et al., 2019); arguments as in `SizedAttack` and `UnforeseenAttack`.

    `attack = Fog(model, eps=2048, steps=200)`, then `x_adv = attack(x, y)`; eps in pixels of 255.
    """

    published_eps: ClassVar[float] = 2048.0

    def _threat(self, eps: Any, step_size: Any) -> Threat:
        return FogThreat(eps, step_size)
