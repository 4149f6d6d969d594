"""How long a step is by default, and checks that the steps reach the boundary of the ball."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .._utils.errors import InputError

PAPER_STEP_SIZE = 0.01
Size = TypeVar("Size", float, Tensor, "float | Tensor")


def default_step_size(norm: str, eps: float, steps: int) -> float:
    """The paper's 0.01 for linf, on every data set; `fine_step` for l2 and l1, which it lacks."""
    return PAPER_STEP_SIZE if norm == "linf" else fine_step(eps, steps)


def fine_step(eps: Size, steps: int) -> Size:
    """2.5 eps / steps: the boundary is reached from anywhere, and steps are left to turn there."""
    return 2.5 * eps / max(steps, 1)


def require_moving(who: str, eps: float | Tensor, step_size: float | Tensor, steps: int) -> None:
    """Raise if step_size is 0 for an image whose eps is not, unless there are no steps."""
    if steps == 0:
        return
    radius, size = torch.as_tensor(eps), torch.as_tensor(step_size)
    if radius.numel() != size.numel() and 1 not in (radius.numel(), size.numel()):
        raise InputError(
            f"{who}: eps and step_size [N] must be of one length, "
            f"got {radius.numel()} and {size.numel()}."
        )
    if bool(((size == 0) & (radius > 0).to(size.device)).any()):
        raise InputError(
            f"{who}: step_size must be above 0 where eps is, got 0; "
            "pass steps=0 for the start alone."
        )


def falls_short(eps: float, step_size: float, steps: int) -> bool:
    """Whether all steps in one direction would not lead from x to the boundary of the ball."""
    return steps * step_size < eps * (1 - 1e-6)


def warn_of_short_cells(who: str, cells: Sequence[tuple[float, float, int]]) -> None:
    """Warn once of the cells (eps, step_size, steps) of a table whose attack falls short."""
    short = [cell for cell in cells if falls_short(*cell)]
    if not short:
        return
    eps, size, steps = short[0]
    more = f", and in {len(short) - 1} more cell(s)" if len(short) > 1 else ""
    warnings.warn(
        f"{who}: steps x step_size = {steps} x {size:g} is smaller than eps = {eps:g}{more}, so "
        "the attack cannot reach the boundary of the ball and says little about it. Increase "
        "steps or step_size.",
        stacklevel=3,
    )


def warn_if_short(who: str, eps: float | Tensor, step_size: float | Tensor, steps: int) -> None:
    """Warn where all steps in one direction would not lead from x to the boundary of the ball."""
    radius = torch.as_tensor(eps).reshape(-1)
    reach = steps * torch.as_tensor(step_size).reshape(-1).to(radius.device)
    missing = radius - reach
    if steps == 0 or bool((missing <= 1e-6 * radius).all()):
        return
    row = int(missing.argmax())
    radius, reach = radius.expand_as(missing), reach.expand_as(missing)
    warnings.warn(
        f"{who}: steps x step_size = {float(reach[row]):g} is smaller than eps = "
        f"{float(radius[row]):g}, so the attack cannot reach the boundary of the ball. "
        "Increase steps or step_size.",
        stacklevel=3,
    )
