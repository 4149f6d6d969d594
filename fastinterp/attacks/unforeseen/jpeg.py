"""JPEG attack: the coefficients that a JPEG file would hold are perturbed, not the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..._utils.errors import InputError
from ..._utils.keywords import hint_keywords
from ..._utils.require import require_one_of
from ...ops.pgd_step import Norm
from ..ascent import Keep
from ..objectives import Objective
from ..threats import L2Ball, LinfBall, Threat
from .attack import SizedAttack
from .common import draw_each, require_nchw
from .dct import BLOCK, CHROMINANCE, LUMINANCE, planes
from .frank_wolfe import CappedL1Ball

PUBLISHED_EPS = {"linf": 0.25, "l2": 8.0, "l1": 256.0}  # for images of 32x32
IMAGENET_EPS = {"linf": 0.062}  # for images of 224x224; other norms have none
SMALL = 64  # PUBLISHED_EPS serves sides of up to so many pixels
CAP = 2.0  # of one coefficient, in the l2 and l1 balls


@dataclass(frozen=True)
class JPEGThreat:
    """Images whose JPEG coefficients lie near those of x (Kang et al., 2019).

    An image is converted to YCbCr, its chroma planes are averaged over 2x2 pixels (4:2:0), each
    plane is cut into blocks of 8x8, and each block's DCT coefficients are divided by the
    quantisation table. z is added to these, and all is undone. As in Kang et al.'s program nothing
    is rounded, so everything but the last clamp is linear in z, and one unit of z is worth half a
    quantisation step. Images of one channel have luminance alone. Sides that are no multiple of
    the block (16 pixels with chroma, else 8) are padded by repeating the border, half on each
    side, and the result is cropped.

    Attributes:
        ball: where z [N, coefficients] may go; a ball around 0.
    """

    ball: Threat

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """0 or, for each image by itself, a point drawn from the ball.

        Raises:
            InputError: x is not [N, C, H, W] with one channel or three.
        """
        require_nchw("JPEG", x, channels=(1, 3))
        origin = self._origin(x)
        if not random_start:
            return self.ball.init(origin, False, generator)

        def draw(n: int, own: torch.Generator) -> Tensor:
            alone = self.ball.rows(torch.tensor([n], device=x.device))
            return alone.init(x.new_zeros(1, origin.shape[1]), True, own)[0]

        return draw_each(x, generator, draw)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return self.ball.step(self._origin(x), z, grad)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        coefficients = self.ball.render(self._origin(x), z)
        left, top, height, width = _frame(x)
        change = _decode(coefficients / 2, x.shape[1], height, width) / 255
        change = change[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        return (_subsampled(x) + change).clamp(0, 1)

    def rows(self, index: Tensor) -> JPEGThreat:
        return replace(self, ball=self.ball.rows(index))

    def _origin(self, x: Tensor) -> Tensor:
        _, _, height, width = _frame(x)
        per_pixel = 1.0 if x.shape[1] == 1 else 1.5
        return x.new_zeros(len(x), int(height * width * per_pixel))


def _frame(x: Tensor) -> tuple[int, int, int, int]:
    """Images [N, C, H, W] -> padding on the left and at the top, and the padded height, width."""
    unit = BLOCK if x.shape[1] == 1 else 2 * BLOCK
    height, width = (math.ceil(side / unit) * unit for side in x.shape[2:])
    return (width - x.shape[3]) // 2, (height - x.shape[2]) // 2, height, width


def _subsampled(x: Tensor) -> Tensor:
    """x [N, C, H, W] with chroma averaged over 2x2 pixels: what z = 0 shows.

    Y + 1.402 Cr = R, and likewise for B and G: each channel less luminance is a mixture of Cb and
    Cr, so averaging these differences averages the chroma.
    """
    if x.shape[1] == 1:
        return x
    left, top, height, width = _frame(x)
    right, bottom = width - left - x.shape[3], height - top - x.shape[2]
    padded = F.pad(x, (left, right, top, bottom), mode="replicate")
    luminance = 0.299 * padded[:, 0:1] + 0.587 * padded[:, 1:2] + 0.114 * padded[:, 2:3]
    shown = luminance + _doubled(F.avg_pool2d(padded - luminance, 2))
    return shown[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _decode(coefficients: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Coefficients [N, d] -> a change of pixels (of 255) [N, channels, height, width]."""
    area = height * width
    y = planes(coefficients[:, :area], LUMINANCE, height, width)[:, None]
    if channels == 1:
        return y
    cb, cr = (
        _doubled(planes(part, CHROMINANCE, height // 2, width // 2)[:, None])
        for part in torch.tensor_split(coefficients[:, area:], 2, dim=1)
    )
    # JFIF 1.02 (1992).
    return torch.cat([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], dim=1)


def _doubled(planes: Tensor) -> Tensor:
    """Each pixel becomes 2x2."""
    return planes.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@hint_keywords
class JPEG(SizedAttack):
    """JPEG attack in the l_inf, l2 or l1 norm of the coefficients (Kang et al., 2019).

    `attack = JPEG(model, eps=0.25, norm="linf", steps=200)`, then `x_adv = attack(x, y)`. linf and
    l2 are projected gradient ascent, l1 is Frank-Wolfe, which needs no step size. In the l2 and l1
    balls no coefficient exceeds 2. Further arguments as in `UnforeseenAttack`.

    Args:
        eps: radius. None takes 0.25 (linf), 8 (l2) or 256 (l1), the values for CIFAR-10 and MNIST,
            for images of at most 64 pixels a side; for ImageNet linf has 0.062. Two units are one
            step of the quantisation tables of the JPEG standard.
        norm: "linf", "l2" or "l1".
        step_size: of one step; for l2 its length. None takes eps / sqrt(steps).

    Raises:
        InputError: a setting is out of its range, or a step size is given with norm="l1".
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor | None = None,
        norm: Norm = "linf",
        steps: int = 200,
        step_size: float | Tensor | None = None,
        *,
        targeted: bool = False,
        objective: Objective | None = None,
        keep: Keep = "last",
        generator: torch.Generator | None = None,
    ) -> None:
        require_one_of("JPEG: norm", norm, PUBLISHED_EPS)
        if norm == "l1" and step_size is not None:
            raise InputError(
                "JPEG: the l1 attack (Frank-Wolfe) sets its own steps; leave step_size out."
            )
        self.norm = norm
        self._for_small = eps is None
        super().__init__(
            model,
            PUBLISHED_EPS[norm] if eps is None else eps,
            steps,
            step_size,
            targeted=targeted,
            objective=objective,
            keep=keep,
            generator=generator,
        )

    def _threat(self, eps: Any, step_size: Any) -> Threat:
        if self.norm == "linf":
            return JPEGThreat(LinfBall(eps, step_size, -math.inf, math.inf))
        if self.norm == "l2":
            return JPEGThreat(L2Ball(eps, step_size, -CAP, CAP))
        return JPEGThreat(CappedL1Ball(eps, CAP))

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack a batch; see `UnforeseenAttack`.

        Raises:
            InputError: as there, or no eps was given and the images are large.
        """
        if self._for_small and isinstance(x, Tensor) and max(x.shape[2:], default=0) > SMALL:
            raise InputError(
                f"JPEG: the default eps is for images of at most {SMALL} pixels a side, got "
                f"{list(x.shape)}; give eps (ImageNet, linf: {IMAGENET_EPS['linf']})."
            )
        return super().__call__(x, y, generator)
