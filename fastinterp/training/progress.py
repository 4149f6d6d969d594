"""What a run has measured so far, kept on the device, and the bar that shows it."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from .._utils.errors import InputError

if TYPE_CHECKING:
    from .trainer import StepResult


class Totals:
    """Sums over the images of the current epoch.

    Attributes:
        sums: [3], of the loss, of images right at x and of images right at x'. On the device, and
            added to without waiting for it.
        images: how many.
    """

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=dtype, device=device)
        self.images = 0

    def add(self, result: StepResult) -> None:
        clean, robust = result.clean_correct, result.robust_correct
        new = torch.stack([result.loss * result.images, clean, clean if robust is None else robust])
        self.sums += new
        self.images += result.images

    def means(self) -> dict[str, float]:
        """Loss and accuracies, image for image. Waits for the device."""
        loss, clean, robust = (self.sums / max(self.images, 1)).tolist()
        return {"loss": loss, "clean_accuracy": clean, "robust_accuracy": robust}


class Every:
    """True at most once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.next = time.monotonic() + seconds

    def due(self) -> bool:
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + self.seconds
        return True


class Bar:
    """A tqdm bar over the images of a run. Showing figures waits for the device, so it is rare."""

    def __init__(self, shown: bool, total: int, done: int, name: str, robust: bool) -> None:
        from tqdm import tqdm

        # Without a terminal each refresh is a line in somebody's log.
        pause = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=" images",
            unit_scale=True,
            disable=not shown,
            mininterval=pause,
            dynamic_ncols=True,
        )
        self._robust = robust
        self._every = Every(pause)

    def update(self, images: int, epoch: int, totals: Totals) -> dict[str, float] | None:
        """Move on; now and then show the epoch's figures, and return them."""
        means = None
        if self._every.due():
            means = totals.means()
            self._bar.set_postfix(self._text(epoch, means), refresh=False)
        self._bar.update(images)
        return means

    def close(self) -> None:
        self._bar.close()

    def _text(self, epoch: int, means: dict[str, float]) -> dict[str, Any]:
        text = {"epoch": epoch + 1, "loss": f"{means['loss']:.3f}"}
        text["clean"] = f"{means['clean_accuracy']:.3f}"
        if self._robust:
            text["robust"] = f"{means['robust_accuracy']:.3f}"
        return text


def require_finite(loss: float, step: int) -> None:
    """Raise if the loss has left the numbers. A state saved before that is left as it is."""
    if not math.isfinite(loss):
        raise InputError(
            f"The loss or a weight is no longer a finite number (noticed at step {step}); lower "
            "the learning rate or gamma, or let eps grow more slowly. The last saved state, if "
            "there is one, is from before that."
        )
