"""The linear half of a JPEG decoder: coefficients of 8x8 blocks -> a plane of pixels."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 8

# ITU-T Recommendation T.81 (1992), Annex K, tables K.1 and K.2: pixels (of 255) that one step of a
# coefficient is worth, by vertical and horizontal frequency. No quality factor is applied.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(4 * ((99,) * 8,)),
)
Table = tuple[tuple[int, ...], ...]


def planes(coefficients: Tensor, table: Table, height: int, width: int) -> Tensor:
    """Quantised coefficients [N, blocks * 64] -> pixels (of 255) [N, height, width].

    Blocks lie row by row, and so do the 64 frequencies of a block. Height and width are multiples
    of 8. Linear: the level shift of 128 is left out.
    """
    rows, columns = height // BLOCK, width // BLOCK
    basis = _basis(table, coefficients.dtype, coefficients.device)
    pixels = coefficients.reshape(-1, BLOCK * BLOCK) @ basis  # [N * blocks, 64]
    tiles = pixels.view(-1, rows, columns, BLOCK, BLOCK)
    return tiles.transpose(2, 3).reshape(-1, height, width)


@lru_cache(maxsize=16)
def _basis(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[64, 64]: row f holds the pixels that one quantisation step of frequency f is worth."""
    with torch.inference_mode(False):  # a cached tensor must serve callers of every mode
        position = torch.arange(BLOCK, dtype=torch.float64)
        frequency = position[:, None]
        cosines = torch.cos((2 * position + 1) * frequency * math.pi / (2 * BLOCK)) / 2
        cosines[0] /= math.sqrt(2)  # [frequency, position], orthonormal
        waves = torch.einsum("uy,vx->uvyx", cosines, cosines)
        steps = torch.tensor(table, dtype=torch.float64)[:, :, None, None]
        return (steps * waves).reshape(BLOCK**2, BLOCK**2).to(device, dtype)
