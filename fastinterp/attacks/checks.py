"""Checks of a batch. They read values, so on a GPU they wait: once a call, never in a loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.gap import GapClassifier
from .modes import eval_mode

TOLERANCE = 1e-6  # a trip through a normalisation and back leaves pixels this far outside [0, 1]


def require_images(who: str, x: object, lower: float, upper: float) -> None:
    """Raise unless x is a floating-point batch [N, ...] with pixels in [lower, upper]."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"{who}: x must be a floating-point tensor, got {kind}; divide 8-bit images by 255."
        )
    if x.dim() < 2:
        raise InputError(f"{who}: x must be a batch [N, ...], got shape {list(x.shape)}.")
    if x.numel() == 0:
        return
    low, high = (float(v) for v in x.detach().aminmax())
    if not (low >= lower - TOLERANCE and high <= upper + TOLERANCE):  # NaN fails too
        raise InputError(
            f"{who}: pixels must lie in [{lower:g}, {upper:g}], got {low:g} to {high:g}; "
            "normalisation belongs inside the model."
        )


def require_labels(who: str, name: str, y: object, x: Tensor) -> Tensor:
    """Return y [N] as int64 if it holds whole numbers, one for each image, on x's device."""
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"{who}: {name} must be an integer tensor, got {kind}.")
    if y.shape != (len(x),):
        raise InputError(f"{who}: {name} must have shape [N] = [{len(x)}], got {list(y.shape)}.")
    if y.device != x.device:
        raise InputError(
            f"{who}: x and {name} must be on the same device, got {x.device} and {y.device}."
        )
    return y.to(torch.int64)


def require_range(who: str, name: str, y: Tensor, num_classes: int) -> None:
    """Raise unless every label lies in 0..num_classes-1."""
    if len(y) == 0:
        return
    low, high = (int(v) for v in y.aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{who}: {name} must lie in 0..{num_classes - 1} for {num_classes} classes, "
            f"got {low}..{high}."
        )


def require_batch(
    who: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    targeted: bool,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Tensor:
    """Raise unless the model can be attacked at images x [N, ...] with labels (or targets) y [N].

    Returns:
        y as int64.
    """
    require_images(who, x, lower, upper)
    weight = next(model.parameters(), x)
    if weight.device != x.device:
        raise InputError(
            f"{who}: the model and x must be on the same device, "
            f"got {weight.device} and {x.device}."
        )
    name = "targets" if targeted else "labels"
    y = require_labels(who, name, y, x)
    if len(x):
        require_range(who, name, y, _num_classes(who, model, x))
    return y


def _num_classes(who: str, model: nn.Module, x: Tensor) -> int:
    if isinstance(model, GapClassifier):
        return model.num_classes
    with eval_mode(model), torch.no_grad():
        logits = model(x[:1])
    if logits.dim() != 2:
        raise InputError(
            f"{who}: the model must give logits [N, C], got shape {list(logits.shape)}."
        )
    return int(logits.shape[1])
