"""The loss of one batch by a method: the inner maximisation over x', then the outer loss."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_labels, require_number, require_range
from ..attacks import Ball, Outputs, ascend
from ..attacks.objectives import require_climbable
from ..attacks.outputs import Precision
from ..attacks.step_size import default_step_size, warn_if_short
from ..attacks.threats import BALLS, Threat
from ..models.freeze import fold
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .methods import Method


class BatchLoss(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: mean over the batch, a scalar with its graph.
        clean: the pass at x. Where the network was folded for the method, its feature maps are the
            class maps or the logits.
        adv: the pass at x'; None for a method without x'.
    """

    loss: Tensor
    clean: Outputs
    adv: Outputs | None


def robust_loss(
    model: GapClassifier,
    method: Method,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat | None,
    steps: int,
    random_start: bool,
    generator: torch.Generator | None,
    precision: Precision = "float32",
    channels_last: bool | None = None,
) -> BatchLoss:
    """Seek x' as the method says and compute its outer loss, ready for `backward`.

    The clean pass made for the loss also gives the inner loop its constants, so features at x are
    computed once. All passes go through the shortest network that gives what the method reads (see
    `fastinterp.models.freeze.fold`). Nothing waits for a GPU; nothing is checked here.

    Args:
        x: images [N, C_in, H, W] in [0, 1], on the model's device.
        y: true classes [N], int64.
        threat: where x' may go (see `ball`); None: nowhere, x' is x.
        steps, random_start, generator: of the inner loop.
        precision: of the inner loop's passes; the caller's `convolutions_in` holds for the others.
        channels_last: lay the images out in that memory format, which the convolutions then keep;
            None: where it is the faster one.
    """
    if _wants_channels_last(x) if channels_last is None else channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    network = fold(model, method.needs, x)
    clean = Outputs(network, x)
    _ = clean.logits  # the one pass at x, made before the inner loop borrows it
    height, width = x.shape[2:]
    if method.needs != "logits" and clean.features.shape[2:].numel() == 1:
        warnings.warn(
            f"{method.name}: images of {height}x{width} give feature maps of one position, "
            "where class maps say no more than logits; take larger images or fewer strides.",
            stacklevel=2,
        )
    adv: Outputs | None = None
    if method.inner is not None and threat is None:
        adv = clean
    elif method.inner is not None and threat is not None:
        x_adv = ascend(
            network,
            threat,
            method.inner,
            x,
            y,
            steps,
            random_start=random_start,
            generator=generator,
            clean=clean if _shares_clean(model, x) else None,
            precision=precision,
        )
        adv = Outputs(network, x_adv)
    return BatchLoss(method.loss(clean, adv, y).mean(), clean, adv)


def ball(eps: float, step_size: float, norm: Norm = "linf") -> Ball | None:
    """Where x' may go; None where that is x alone.

    With eps = 0 the random start, the steps and the projection would all give x itself.
    """
    return None if eps == 0 else BALLS[norm](eps, step_size)


def _wants_channels_last(x: Tensor) -> bool:
    """On a CPU oneDNN's convolutions are the faster for it: a quarter for Small, half for Pool."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 4


def _shares_clean(model: nn.Module, x: Tensor) -> bool:
    """Whether the pass at x made for the outer loss is the one that the inner loop would make.

    Sharing it saves 0.5% of an Int iteration on MNIST Small with 40 steps, 4.6% with 7.
    It runs in eval mode and full precision, which differ in a network with batch normalisation or
    dropout, and under autocast.
    """
    if torch.is_autocast_enabled(x.device.type):
        return False
    return not any(m.training and isinstance(m, _MODAL) for m in model.modules())


_MODAL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)


def require_gap(model: object) -> None:
    """Raise unless the model is one that can be trained here."""
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        raise InputError(
            f"The search for x' runs on the bare network, got it inside {type(model).__name__}; "
            "wrap a module whose forward returns IntLoss(...)(network, x, y) instead (see "
            "docs/concepts.md, Several processes)."
        )
    if not isinstance(model, GapClassifier):
        raise InputError(
            f"Training needs a GapClassifier, got {type(model).__name__}; "
            "make one of it with fastinterp.models.wrap."
        )


def require_known_labels(who: str, y: Tensor, x: Tensor, num_classes: int) -> Tensor:
    """Return y [N] as int64 if it holds a class for each image; on a GPU any whole numbers pass."""
    y = require_labels(who, "labels", y, x)
    if y.device.type == "cpu":
        require_range(who, "labels", y, num_classes)
    return y


def require_inner(
    method: Method,
    eps: float,
    steps: int,
    step_size: float | None,
    random_start: bool,
    norm: Norm = "linf",
) -> tuple[float, int, float]:
    """Raise unless the settings of the inner loop are in their range.

    Returns:
        eps, steps and step_size as Python's own numbers, which a run's record can hold.
    """
    if norm not in BALLS:
        raise InputError(f"norm must be one of {', '.join(BALLS)}, got {norm!r}.")
    if method.inner is not None:
        require_climbable(method.inner, random_start)
    eps, steps = require_size("eps", eps), require_count("steps", steps, 0)
    if step_size is None:
        step_size = default_step_size(norm, eps, steps)
    step_size = require_size("step_size", step_size)
    if method.inner is not None:
        warn_if_short(method.name, eps, step_size, steps)
    return eps, steps, step_size


def require_size(name: str, value: object) -> float:
    """Return a finite number >= 0 as a float; a tensor is none, one size serves a whole run."""
    if isinstance(value, Tensor):
        raise InputError(
            f"{name} must be a number, got a tensor of shape {list(value.shape)}; "
            "training takes one for all images."
        )
    number = require_number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} must be a finite number >= 0, got {number!r}.")
    return number
