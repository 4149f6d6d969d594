"""Snow attack: flakes of random shape whose brightness is optimised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..._utils.require import require_nonnegative
from ..threats import Threat
from .attack import SizedAttack
from .common import Sized, draw_each, require_nchw, uniform

KINDS = 7  # of flakes, each with a shape of its own
SPACING = 4  # pixels between flakes of one kind
REACH = 6  # pixels that a flake reaches from its middle
TILE = 2 * REACH + SPACING  # holds a flake wherever in its cell its kind stands
REGION = 8  # flakes a side, over which the budget is shared
FAINTEST = 1e-9  # what is seen is intensity^4, whose gradient is zero at 0


@dataclass(frozen=True)
class SnowThreat(Sized):
    """Snow on a paler image (Kang et al., 2019).

    Flakes of seven kinds stand on grids of 4x4 pixels, each kind shifted. Their intensities, in
    [0, 1], are optimised; over each region of 8x8 flakes the mean intensity of a kind is at most
    `budget`. What is seen is intensity^4 times the kind's shape, so that few flakes are bright.
    z [N, 7 h w + 7 * 16^2], with h = ceil(H / 4), w = ceil(W / 4), holds intensities and shapes;
    the shapes, each on a tile that says where its kind stands, stay as drawn.

    Attributes:
        eps: the snow's brightness: a flake of intensity 1 adds eps times its shape to pixels in
            [0, 1].
        step_size: of an intensity.
        budget: of a region.
    """

    budget: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("budget", self.budget)

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """Shapes and intensities, drawn for each image by itself; there is no other start.

        Raises:
            InputError: x is not [N, C, H, W] with one channel or three.
        """
        require_nchw("Snow", x, channels=(1, 3))
        height, width = _grid(x)

        def draw(n: int, own: torch.Generator) -> Tensor:
            shapes = _draw_shapes(own)
            intensities = torch.exp(-uniform(own, KINDS, height, width) / max(self.budget, 1e-3))
            return torch.cat([intensities.flatten(), shapes.flatten()])

        z = draw_each(x, generator, draw)
        flakes = KINDS * height * width
        return torch.cat([self._affordable(z[:, :flakes], height, width), z[:, flakes:]], dim=1)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        height, width = _grid(x)
        flakes = KINDS * height * width
        moved = z[:, :flakes] + self.step_size * grad[:, :flakes].sign()
        return torch.cat([self._affordable(moved, height, width), z[:, flakes:]], dim=1)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        height, width = _grid(x)
        flakes = KINDS * height * width
        intensities = z[:, :flakes].reshape(-1, KINDS, height, width)
        shapes = z[:, flakes:].detach().reshape(-1, KINDS, TILE * TILE)
        # Each flake paints a tile: all tiles first, then their sum where they overlap.
        tiles = shapes.transpose(1, 2) @ intensities.pow(4).flatten(2)  # [N, TILE^2, h w]
        size = (SPACING * (height - 1) + TILE, SPACING * (width - 1) + TILE)
        snow = F.fold(tiles, size, TILE, stride=SPACING)
        snow = snow[:, :, REACH : REACH + x.shape[2], REACH : REACH + x.shape[3]]
        return (_paler(x) + self.eps * snow).clamp(0, 1)

    def _affordable(self, intensities: Tensor, height: int, width: int) -> Tensor:
        """Intensities [N, 7 h w] -> clamped, and dimmed where a region is over its budget."""
        grid = intensities.view(-1, KINDS, height, width).clamp(FAINTEST, 1)
        mean = F.avg_pool2d(grid, REGION, ceil_mode=True, count_include_pad=False)
        share = (self.budget / mean).clamp(max=1)
        share = share.repeat_interleave(REGION, dim=2).repeat_interleave(REGION, dim=3)
        return (grid * share[..., :height, :width]).flatten(1)


def _grid(x: Tensor) -> tuple[int, int]:
    """Images [N, C, H, W] -> flakes of one kind by height and width."""
    return math.ceil(x.shape[2] / SPACING), math.ceil(x.shape[3] / SPACING)


def _paler(x: Tensor) -> Tensor:
    """A quarter of the way to a bright grey, where that is brighter than x."""
    grey = x
    if x.shape[1] == 3:
        grey = 0.2126 * x[:, 0:1] + 0.7152 * x[:, 1:2] + 0.0722 * x[:, 2:3]
    return 0.75 * x + 0.25 * torch.maximum(x, 1.5 * grey + 0.5)


def _draw_shapes(own: torch.Generator) -> Tensor:
    """Blurred strokes that lean to one side, a tile for each kind: [7, 16, 16]."""
    mirrored = bool(torch.rand((), generator=own) < 0.5)
    tiles = torch.zeros(KINDS, TILE, TILE, dtype=torch.float64)
    side = 2 * REACH + 1
    for kind, tile in enumerate(tiles):
        # Four kinds share the first row of each 4x4 cell, three the rest of its first column.
        down, right = (0, kind) if kind < SPACING else (kind - SPACING + 1, 0)
        stroke = _draw_stroke(own)
        tile[down : down + side, right : right + side] = stroke.flip(1) if mirrored else stroke
    return tiles


def _draw_stroke(own: torch.Generator) -> Tensor:
    """A stroke through the middle of a square [13, 13], of random length, angle, width, blur."""
    end_y, end_x = torch.randint(2, REACH + 1, (2,), generator=own).double()
    wide = (1, 3, 5)[int(torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 1, generator=own))]
    blur = 0.41 + 0.19 * float(uniform(own, 1))
    position = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    y, x = position[:, None], position[None, :]
    length = torch.hypot(end_y, end_x)
    across = (x * end_y - y * end_x) / length
    beyond = ((x * end_x + y * end_y).abs() / length - length).clamp(min=0)
    stroke = (1 + wide / 4 - torch.hypot(across, beyond)).clamp(0, 1)
    return _blurred(stroke, blur)


def _blurred(shape: Tensor, std: float) -> Tensor:
    """[H, W] convolved with a Gaussian of 3x3 pixels."""
    row = torch.exp(-torch.tensor([1.0, 0.0, 1.0], dtype=shape.dtype) / (2 * std**2))
    kernel = torch.outer(row, row) / row.sum() ** 2
    return F.conv2d(shape[None, None], kernel[None, None], padding=1)[0, 0]


class Snow(SizedAttack):
    """Snow attack (Kang et al., 2019); arguments as in `SizedAttack` and `UnforeseenAttack`.

    `attack = Snow(model, eps=2, steps=200)`, then `x_adv = attack(x, y)`; eps is the brightness.
    """

    published_eps: ClassVar[float] = 2.0

    def _threat(self, eps: Any, step_size: Any) -> Threat:
        return SnowThreat(eps, step_size)
