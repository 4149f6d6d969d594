"""Maps at the size of the image, for pictures."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError


def upsample(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bilinear enlargement of maps [N, C', h, w] to [N, C', H, W].

    Corners are not aligned: a cell of the map covers its share of the image, as average pooling
    would have it. Linear, hence differentiable to any order.

    Args:
        maps: [N, C', h, w], floating point.
        size: (H, W), or one number for both.

    Raises:
        InputError: maps that have not four dimensions, or a size below 1.
    """
    if maps.dim() != 4:
        raise InputError(f"upsample: maps must be [N, C', h, w], got {list(maps.shape)}.")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"upsample: size must be at least 1, got {size!r}.")
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
