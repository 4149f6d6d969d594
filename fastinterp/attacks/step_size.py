"""How long a step is where nobody says, and whether the steps can cross the ball."""

from __future__ import annotations

import warnings
from typing import overload

import torch
from torch import Tensor

PAPER_STEP_SIZE = 0.01


def default_step_size(norm: str, eps: float, steps: int) -> float:
    """The paper's 0.01 for linf, on every data set. It has no l2 or l1, which get `fine_step`."""
    return PAPER_STEP_SIZE if norm == "linf" else fine_step(eps, steps)


@overload
def fine_step(eps: float, steps: int) -> float: ...
@overload
def fine_step(eps: float | Tensor, steps: int) -> float | Tensor: ...
def fine_step(eps: float | Tensor, steps: int) -> float | Tensor:
    """2.5 eps / steps: long enough to reach the edge of the ball from within, and to turn there."""
    return 2.5 * eps / max(steps, 1)


def warn_if_short(who: str, eps: float | Tensor, step_size: float | Tensor, steps: int) -> None:
    """Warn where all steps in one direction would not lead from x to the edge of the ball."""
    if steps == 0:
        return
    radius, size = torch.as_tensor(eps), torch.as_tensor(step_size)
    missing = radius - steps * size.to(radius.device)
    if missing.numel() == 0 or bool((missing <= 1e-6 * radius).all()):
        return
    row = int(missing.argmax())
    radius, size = (t.reshape(-1)[row if t.numel() > 1 else 0] for t in (radius, size))
    warnings.warn(
        f"{who}: {steps} steps of {float(size):g} end {steps * float(size):g} from where they "
        f"start at most, in a ball of radius {float(radius):g}; raise step_size or steps to search "
        "all of it.",
        stacklevel=3,
    )
