"""RISE: maps from the scores of randomly masked images (Petsiuk et al., BMVC 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_count, require_number, require_one_of
from ..models.gap import require_fit, require_network
from .base import Classes, class_index, pick
from .watch import warn_of_misuse


class RISE(Described):
    """L(x, c) = 1 / (M keep) sum_m s_c(x * mask_m) mask_m over M random masks.

    A mask is a grid of cells x cells zeros and ones (ones with probability `keep`), enlarged
    bilinearly and shifted at random. Every call draws the same masks from `seed` for all images of
    the batch, so the map is a function of the image alone. Needs no gradients; under grad mode the
    map is differentiable like the network, and the graph of all masks stays in memory.

    Args:
        model: the network.
        masks: M.
        cells: cells of the grid along each side.
        keep: probability that a cell stays visible, in (0, 1].
        score: s_c is the softmax "probability", as in the publication, or the "logit".
        seed: of the masks.
        chunk_size: most masked images in one pass through the network.

    Raises:
        InputError: the model is no bare module, masks, cells or chunk_size below 1, keep or score
            not as above; when called, an x that the network does not take, or a class that is none
            of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: int = 1000,
        cells: int = 7,
        keep: float = 0.5,
        *,
        score: Literal["probability", "logit"] = "probability",
        seed: int = 0,
        chunk_size: int = 512,
    ) -> None:
        require_network("RISE", model)
        if not 0 < require_number("keep", keep) <= 1:
            raise InputError(f"keep must be a probability in (0, 1], got {keep!r}.")
        self.model = model
        self.masks = require_count("masks", masks)
        self.cells = require_count("cells", cells)
        self.keep = keep
        self.score = require_one_of("score", score, ("probability", "logit"))
        self.seed = seed
        self.chunk_size = require_count("chunk_size", chunk_size)

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] -> maps [N, C', H, W]; `classes` as in `Classes`."""
        require_fit("RISE", self.model, x)
        warn_of_misuse("RISE", self.model, x)
        if x.dim() != 4:
            raise InputError(f"RISE: x must be images [N, C, H, W], got shape {list(x.shape)}.")
        index = class_index(classes, x, self.model)
        batches = self.draw_masks(x, max(1, self.chunk_size // max(1, len(x))))
        total = reduce(torch.add, (self._masked_sum(x, masks, index) for masks in batches))
        return total / (self.masks * self.keep)

    def _masked_sum(self, x: Tensor, masks: Tensor, index: Tensor | None) -> Tensor:
        """Masks [M', H, W] -> sum_m s_c(x * mask_m) mask_m, [N, C', H, W]."""
        masked = (x[None] * masks[:, None, None]).flatten(0, 1)  # [M' N, C_in, H, W]
        chunks = torch.split(masked, self.chunk_size)
        logits = torch.cat([pick(self.model(part), None, self.model) for part in chunks])
        scores = logits if self.score == "logit" else logits.softmax(dim=1)
        scores = scores.view(len(masks), len(x), logits.shape[1])  # [M', N, C]
        wanted = torch.stack([pick(one, index, self.model) for one in scores])  # [M', N, C']
        return torch.einsum("mnc,mhw->nchw", wanted, masks)

    def draw_masks(self, x: Tensor, per_pass: int) -> Iterator[Tensor]:
        """Masks in [0, 1] for images like x, [M', H, W] at a time, the same on every device."""
        generator = torch.Generator().manual_seed(self.seed)
        height, width = x.shape[2:]
        cell = (math.ceil(height / self.cells), math.ceil(width / self.cells))
        size = [(self.cells + 1) * side for side in cell]  # one cell more, to be shifted over
        # All drawn at once: the number of masks in a pass must not change them.
        grids = torch.rand(self.masks, 1, self.cells, self.cells, generator=generator) < self.keep
        tops, lefts = (torch.randint(side, (self.masks,), generator=generator) for side in cell)
        for some in torch.split(torch.arange(self.masks), per_pass):
            large = F.interpolate(
                grids[some].float(), size=size, mode="bilinear", align_corners=False
            )
            corners = zip(tops[some].tolist(), lefts[some].tolist(), strict=True)
            masks = [
                image[0, top : top + height, left : left + width]
                for image, (top, left) in zip(large, corners, strict=True)
            ]
            # The enlargement may leave [0, 1] by a rounding error.
            yield torch.stack(masks).clamp(0, 1).to(device=x.device, dtype=x.dtype)
