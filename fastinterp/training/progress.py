"""The figures of the current epoch, and the bar that shows them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from .._utils.errors import InputError
from .result import StepResult


class Totals:
    """Sums over the images of the current epoch.

    Attributes:
        sums: [3], of the loss, of images correct at x and of images correct at x'. They stay on
            the device, so that adding does not wait for it.
        images: number of images.
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
        """Mean loss and accuracies over the images. Waits for the device."""
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
    """A tqdm bar over the images of a run. Figures are rare, because they wait for the device."""

    def __init__(self, shown: bool, total: int | None, done: int, name: str, robust: bool) -> None:
        from tqdm import tqdm

        # A log file gets a line for each epoch, and one a minute in long epochs.
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=" images",
            unit_scale=True,
            disable=not (shown and terminal),
            mininterval=0.5,
            dynamic_ncols=True,
            leave=False,
        )
        self._robust, self._name = robust, name
        self._lines, self._between = shown, shown and not terminal
        self._every = Every(0.5 if terminal else 60.0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, images: int, epoch: int, totals: Totals) -> dict[str, float] | None:
        """Move on; show and return the epoch's figures if it is time."""
        means = None
        if self._every.due():
            means = totals.means()
            text: dict[str, Any] = {"epoch": epoch + 1, "loss": f"{means['loss']:.3f}"}
            text["clean"] = f"{means['clean_accuracy']:.3f}"
            if self._robust:
                text["robust"] = f"{means['robust_accuracy']:.3f}"
            self._bar.set_postfix(text, refresh=False)
            if self._between:
                so_far = ", ".join(f"{key} {value}" for key, value in text.items())
                print(f"{self._name}: {so_far} after {totals.images} images", file=sys.stderr)
        self._bar.update(images)
        return means

    def end_epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        """Print a line with the final figures of an epoch."""
        if not self._lines:
            return
        shown = {
            "loss": row["loss"],
            "clean": row["clean_accuracy"],
            "robust": row["robust_accuracy"],
            "val": row.get("val_accuracy"),
            "val robust": row.get("val_robust_accuracy"),
        }
        figures = [f"{key} {value:.3f}" for key, value in shown.items() if value is not None]
        line = f"{self._name}: epoch {row['epoch']}/{epochs}, {', '.join(figures)}, "
        self._bar.write(f"{line}{row['seconds']:.1f} s", file=sys.stderr)


def require_finite(loss: float, step: int) -> None:
    """Raise if the loss is infinite or NaN. The last saved state is left as it is."""
    if not math.isfinite(loss):
        raise InputError(
            f"The loss or a weight is no longer a finite number (noticed at step {step}); lower "
            "the learning rate or gamma, or increase eps more slowly. The last saved state is "
            "from before that."
        )
