"""Elastic attack: the image is warped by a small, smooth flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..threats import LinfBall, Threat
from .attack import SizedAttack
from .common import draw_each, require_nchw

BLUR = 3 / 224  # standard deviation of the blur, by the image's shorter side


@dataclass(frozen=True)
class ElasticThreat:
    """x seen through a flow that moves no pixel further than a ball allows (Kang et al., 2019).

    z [N, 2, H, W] holds a displacement for each pixel, x first. It is smoothed by a Gaussian (3
    pixels for images of 224x224 and in proportion for others) and x' is x, interpolated bilinearly
    at the displaced points; beyond the border the image repeats its border.

    Attributes:
        ball: where z may go, in pixels; a ball around 0.
    """

    ball: Threat

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """0 or, for each image by itself, a flow drawn uniformly from the ball.

        Raises:
            InputError: x is not [N, C, H, W] with sides of at least 2 pixels.
        """
        require_nchw("Elastic", x, side=2)
        if not random_start:
            return self._origin(x)

        def draw(n: int, own: torch.Generator) -> Tensor:
            alone = self.ball.rows(torch.tensor([n], device=x.device))
            return alone.init(x.new_zeros(1, 2, *x.shape[2:]), True, own)[0]

        return draw_each(x, generator, draw)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return self.ball.step(self._origin(x), z, grad)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y_pixels = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
        x_pixels = torch.arange(width, device=x.device, dtype=x.dtype)
        across, down = _smooth(z).unbind(dim=1)
        # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's.
        points = torch.stack(
            [
                2 * (x_pixels + across) / (width - 1) - 1,
                2 * (y_pixels + down) / (height - 1) - 1,
            ],
            dim=-1,
        )
        warped = F.grid_sample(
            x, points, mode="bilinear", padding_mode="border", align_corners=True
        )
        return warped.clamp(0, 1)

    def rows(self, index: Tensor) -> ElasticThreat:
        return replace(self, ball=self.ball.rows(index))

    def _origin(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 2, *x.shape[2:])


def _smooth(flow: Tensor) -> Tensor:
    """Flow [N, 2, H, W] convolved with a Gaussian; the border is mirrored."""
    std = BLUR * min(flow.shape[2:])
    reach = math.ceil(4 * std)
    offsets = torch.arange(-reach, reach + 1, device=flow.device, dtype=flow.dtype)
    kernel = torch.exp(-offsets.square() / (2 * std**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = F.pad(flow.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="reflect")
    planes = F.conv2d(F.conv2d(planes, kernel), kernel.transpose(2, 3))
    return planes.view_as(flow)


class Elastic(SizedAttack):
    """Elastic attack (Kang et al., 2019); arguments as in `SizedAttack` and `UnforeseenAttack`.

    `attack = Elastic(model, eps=1, steps=200)`, then `x_adv = attack(x, y)`; eps in pixels.
    """

    published_eps: ClassVar[float] = 1.0

    def _threat(self, eps: Any, step_size: Any) -> Threat:
        return ElasticThreat(LinfBall(eps, step_size, -math.inf, math.inf))
