"""Maps at the size of the image, for pictures."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_count


def upsample(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bilinear enlargement of maps [N, C', h, w] to [N, C', H, W].

    Corners are not aligned: a cell of the map covers its share of the image, as in average
    pooling. Differentiable to any order.

    Args:
        maps: [N, C', h, w], floating point.
        size: (H, W), or one number for both.

    Raises:
        InputError: maps without four dimensions, or a size that is no whole numbers >= 1.
    """
    if maps.dim() != 4:
        raise InputError(f"upsample: maps must be [N, C', h, w], got {list(maps.shape)}.")
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2:
        raise InputError(f"upsample: size must be (H, W) or one number, got {size!r}.")
    height, width = (require_count("upsample: size", side) for side in sides)
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
