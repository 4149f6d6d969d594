"""Checks of a batch. They read values, so on a GPU they wait: once a call, never in a loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_floating
from .._utils.require import require_labels as require_labels
from .._utils.require import require_range as require_range
from ..models.gap import GapClassifier, require_fit
from .modes import eval_mode, own_autograd

TOLERANCE = 1e-6  # a trip through a normalisation and back leaves pixels this far outside [0, 1]


def require_images(who: str, x: object, lower: float, upper: float) -> None:
    """Raise unless x is a floating-point batch [N, ...] with pixels in [lower, upper]."""
    x = require_floating(who, "x", x)
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


def require_pixel_eps(who: str, norm: str, eps: float) -> None:
    """Raise if a linf radius is larger than the range [0, 1] of pixels."""
    if norm == "linf" and eps > 1:
        raise InputError(
            f"{who}: eps = {eps:g} is larger than 1, the range of pixels in [0, 1]; for {eps:g} of "
            f"255 grey levels write {eps:g}/255."
        )


def require_batch(
    who: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    targeted: bool,
    lower: float = 0.0,
    upper: float = 1.0,
    gradient: bool = True,
) -> Tensor:
    """Raise unless the model can be attacked at images x [N, ...] with labels (or targets) y [N].

    Args:
        gradient: whether the attack needs the logits' gradient by x.

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
    if isinstance(model, GapClassifier):
        require_fit(who, model, x, autocast=False)  # attacks run without it
    name = "targets" if targeted else "labels"
    y = require_labels(who, name, y, x)
    if len(x):
        require_range(who, name, y, count_classes(who, model, x, gradient))
    return y


def count_classes(who: str, model: nn.Module, x: Tensor, gradient: bool = True) -> int:
    """C; a model that does not say it is asked for the logits of the first image of x.

    Raises:
        InputError: the model gives something else than logits [N, C], or with `gradient` ones
            without a gradient by x.
    """
    if isinstance(model, GapClassifier):
        return model.num_classes
    with eval_mode(model), own_autograd(x.device.type), torch.set_grad_enabled(gradient):
        logits = model(x[:1].detach().clone().requires_grad_(gradient))
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        is_tensor = isinstance(logits, Tensor)
        kind = f"shape {list(logits.shape)}" if is_tensor else f"a {type(logits).__name__}"
        raise InputError(f"{who}: the model must give logits [N, C] as a tensor, got {kind}.")
    if gradient and not logits.requires_grad:
        raise InputError(
            f"{who}: the model's logits have no gradient by x; it must not run under no_grad or "
            "detach them."
        )
    return int(logits.shape[1])


def require_generator(who: str, generator: object) -> None:
    """Raise unless it is one of torch's generators, or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"{who}: generator must be a torch.Generator, got {generator!r}; "
            "for a seed pass torch.Generator().manual_seed(seed)."
        )


class Function(nn.Module):
    """A function from images to logits, as a module without parameters or modes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def as_module(who: str, model: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """The model itself, or a function as a module.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, nn.Module):
        return model
    if not callable(model) or isinstance(model, type):
        got = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InputError(
            f"{who}: model must be a torch.nn.Module or a function from images to logits, "
            f"got {'the class ' if isinstance(model, type) else ''}{got}."
        )
    return Function(model)
