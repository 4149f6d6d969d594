"""What a network says of its convolutions, and `ops.conv_stack` runs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Convolution(NamedTuple):
    """A convolution of a stack, and the max-pooling that may follow it.

    Attributes:
        weight: [out, in, k, k'].
        bias: [out].
        stride: of the windows, in rows and columns.
        padding: zeros: top, bottom, left, right.
        pool: what comes out is pooled by windows of so many rows and columns, as far apart, the
            last of which end where the maps end; 1 is none. At most 16.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: tuple[int, int, int, int]
    pool: int = 1
