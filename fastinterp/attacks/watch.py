"""Whether the gradients that an attack climbed along, and the logits it judged, were numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._utils.errors import InputError
from .threats import Around, Threat


class Watch:
    """Whether the gradients of one call are finite; only `require_finite` waits for a GPU.

    A step along a gradient of NaN moves nothing or makes NaN pixels: the image would count as
    robust, or as fooled, without ever having been attacked.
    """

    def __init__(self) -> None:
        self._zero: Tensor | None = None  # NaN once an entry was not finite

    def over(self, threat: Threat) -> Threat:
        """The same threat, whose steps are watched."""
        return Watched(threat, self)

    def see(self, grad: Tensor) -> None:
        zero = (grad * 0).sum()
        self._zero = zero if self._zero is None else self._zero + zero

    def require_finite(self, who: str, x_adv: Tensor) -> None:
        """Raise unless all gradients and the perturbed images [N, ...] are finite numbers."""
        bad = ~x_adv.isfinite().all()
        if self._zero is not None:
            bad = bad | self._zero.isnan()
        if bool(bad):
            raise InputError(
                f"{who}: the gradient of the objective by the images is not finite, so the attack "
                "cannot climb it; look for overflow or a root of zero in the model's forward pass, "
                "or run it in float64."
            )


@dataclass(frozen=True)
class Watched(Around):
    """A threat whose steps are watched."""

    watch: Watch

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        self.watch.see(grad)
        return super().step(x, z, grad)

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: Tensor) -> Tensor:
        self.watch.see(grad)
        return super().move(x, z, grad, size)


def require_finite_logits(who: str, logits: Tensor) -> None:
    """Raise unless the logits [N, C] are finite; this waits for a GPU."""
    if not bool(logits.isfinite().all()):
        raise InputError(
            f"{who}: the model's logits are not finite, so it gives no prediction; its training "
            "diverged, its checkpoint is damaged, or its forward pass overflows."
        )
