"""Gabor attack: a sparse field convolved with a random Gabor kernel, added to the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..threats import Threat
from .attack import SizedAttack
from .common import Sized, draw_each, require_nchw, uniform

KERNEL = 23  # pixels a side
ONE_IN = 14  # of all pixels, those where a kernel may stand


@dataclass(frozen=True)
class GaborThreat(Sized):
    """x plus noise: kernels of one shape, standing at some pixels (Kang et al., 2019; Co et al.).

    For each image are drawn a Gabor kernel and the sites, one pixel in 14, where it may stand. The
    strengths at the sites, in [-1, 1], are optimised. The field convolved with the kernel is
    normalised to a contrast that is alike everywhere (`_normalised`), and x' = x + eps noise.
    z [N, 2 HW + 23^2] holds the field, the sites (0 or 1) and the kernel; the last two stay as
    drawn. All channels get the same noise.

    Attributes:
        eps: the noise's range, in pixels of 255.
        step_size: of a strength; Kang et al. take that of eps, so strengths are mostly -1 or 1.
    """

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """Sites, kernel and strengths, drawn for each image by itself; there is no other start.

        Raises:
            InputError: x is not [N, C, H, W].
        """
        require_nchw("Gabor", x)
        pixels = x.shape[2] * x.shape[3]

        def draw(n: int, own: torch.Generator) -> Tensor:
            kernel = _draw_kernel(own)
            sites = torch.zeros(pixels, dtype=torch.float64)
            count = max(round(pixels / ONE_IN), 1)
            sites[torch.randperm(pixels, generator=own)[:count]] = 1
            strengths = 2 * uniform(own, pixels) - 1
            return torch.cat([strengths * sites, sites, kernel.flatten()])

        return draw_each(x, generator, draw)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        field, sites = z[:, :pixels], z[:, pixels : 2 * pixels]
        moved = (field + self.step_size * grad[:, :pixels].sign()).clamp(-1, 1) * sites
        return torch.cat([moved, z[:, pixels:]], dim=1)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        count, _, height, width = x.shape
        field = z[:, : height * width].view(1, count, height, width)
        kernels = z[:, 2 * height * width :].detach().view(count, 1, KERNEL, KERNEL)
        noise = F.conv2d(field, kernels, padding=KERNEL // 2, groups=count)
        return (x + self.eps / 255 * _normalised(noise.transpose(0, 1))).clamp(0, 1)


def _draw_kernel(own: torch.Generator) -> Tensor:
    """A Gabor kernel [23, 23] of one to ten directions, of random width, frequency and angle."""
    directions = int(torch.randint(1, 11, (), generator=own))
    width, frequency, angle = uniform(own, 3)
    width = 0.1 + 0.3 * width  # the kernel's side is 1
    frequency = 3 + (KERNEL / 4 - 3) * frequency  # waves across the kernel
    position = torch.linspace(-0.5, 0.5, KERNEL, dtype=torch.float64)
    y, x = position[:, None], position[None, :]
    envelope = torch.exp(-(x.square() + y.square()) / (2 * (width + 1e-3).square()))
    angles = math.pi * (angle + torch.arange(directions, dtype=torch.float64) / directions)
    along = x * angles.cos()[:, None, None] + y * angles.sin()[:, None, None]
    return envelope * torch.cos(2 * math.pi * frequency * along).sum(dim=0)


def _normalised(noise: Tensor) -> Tensor:
    """Noise [N, 1, H, W] -> [0, 1], with an amplitude that is nearly the same at every pixel.

    Each pixel's deviation from the mean is divided by its own size (taken from the largest, plus a
    thousandth). Kang et al. compute that size by a Fourier transform and its inverse, which cancel.
    The gradient takes mean, sizes and range for constants, as theirs does.
    """
    with torch.no_grad():
        mean = noise.mean(dim=(1, 2, 3), keepdim=True)
        size = (noise - mean).abs()
        size = size / size.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        gain = 1.001 / (0.001 + size)
        flat = (noise - mean) * gain
        low = flat.amin(dim=(1, 2, 3), keepdim=True)
        high = flat.amax(dim=(1, 2, 3), keepdim=True)
    return ((noise - mean) * gain - low) / (high - low).clamp(min=1e-12)


class Gabor(SizedAttack):
    """Gabor attack (Kang et al., 2019); arguments as in `SizedAttack` and `UnforeseenAttack`.

    `attack = Gabor(model, eps=400, steps=200)`, then `x_adv = attack(x, y)`; eps in pixels of 255.
    """

    published_eps: ClassVar[float] = 400.0

    def _threat(self, eps: Any, step_size: Any) -> Threat:
        return GaborThreat(eps, step_size)
