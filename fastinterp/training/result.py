"""What one optimisation step measures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepResult:
    """What one optimisation step measured. Tensors stay on the device, so nothing waits for it.

    Attributes:
        loss: the outer loss, mean over the batch, a scalar.
        clean_correct: number of images that were classified correctly at x, before the step.
        robust_correct: the same at x'; None for a method without x'.
        images: number of images in the batch.
    """

    loss: Tensor
    clean_correct: Tensor
    robust_correct: Tensor | None
    images: int

    @property
    def clean_accuracy(self) -> Tensor:
        return self.clean_correct / self.images

    @property
    def robust_accuracy(self) -> Tensor | None:
        return None if self.robust_correct is None else self.robust_correct / self.images
