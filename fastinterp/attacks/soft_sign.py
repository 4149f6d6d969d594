"""The linf ball of ISA, whose steps shrink where the gradient is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._utils.require import require_positive
from ..ops.pgd_step import Norm
from .threats import LinfBall, per_image


@dataclass(frozen=True)
class SoftSignBall(LinfBall):
    """Every pixel may change by eps at most; a step is step_size * clip(gain * grad, -1, 1).

    Where the gradient is large that is the step along its sign. Where it is tiny, because the parts
    of an objective cancel or nothing depends on the pixel, the pixel moves little or not at all.

    Attributes:
        gain: positive; the greater, the closer to the sign.
    """

    gain: float = 1000.0
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gain", self.gain)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        eps, step_size = (per_image(value, x) for value in (self.eps, self.step_size))
        moved = z + step_size * (self.gain * grad).clamp_(-1, 1)
        inside = torch.minimum(torch.maximum(moved, x - eps), x + eps)
        return inside.clamp_(self.lower, self.upper)
