"""The loss of one batch by a method: the inner maximisation over x', then the outer loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import LinfBall, Outputs, ascend
from ..attacks.objectives import require_a_way_up
from ..attacks.threats import require_radius
from ..errors import InputError
from ..models.gap import GapClassifier
from .methods import Method


class BatchLoss(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: mean over the batch, a scalar with its graph.
        clean: the pass at x.
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
    eps: float,
    steps: int,
    step_size: float,
    random_start: bool,
    generator: torch.Generator | None,
) -> BatchLoss:
    """Seek x' as the method says and compute its outer loss, ready for `backward`.

    The clean pass made for the loss also gives the inner loop its constants, so features at x are
    computed once. Nothing waits for a GPU; nothing is checked here.

    Args:
        x: images [N, C_in, H, W] in [0, 1], on the model's device.
        y: true classes [N], int64.
        eps, steps, step_size, random_start, generator: of the inner loop, in the linf ball.
    """
    clean = Outputs(model, x)
    _ = clean.logits  # the one pass at x, made before the inner loop borrows it
    adv: Outputs | None = None
    if method.inner is not None and eps == 0:
        # The ball holds x alone: random start, steps and projection all give x itself.
        adv = clean
    elif method.inner is not None:
        x_adv = ascend(
            model,
            LinfBall(eps, step_size),
            method.inner,
            x,
            y,
            steps,
            random_start=random_start,
            generator=generator,
            clean=clean if _shares_clean(model, x) else None,
        )
        adv = Outputs(model, x_adv)
    return BatchLoss(method.loss(clean, adv, y).mean(), clean, adv)


def _shares_clean(model: nn.Module, x: Tensor) -> bool:
    """Whether the pass at x made for the outer loss is the one that the inner loop would make.

    It runs in eval mode and full precision, which differ in a network with batch normalisation or
    dropout, and under autocast.
    """
    if torch.is_autocast_enabled(x.device.type):
        return False
    return not any(m.training and isinstance(m, _MODAL) for m in model.modules())


_MODAL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)


def require_gap(model: object) -> None:
    """Raise unless the model is one that can be trained here."""
    if not isinstance(model, GapClassifier):
        raise InputError(
            f"Training needs a GapClassifier, got {type(model).__name__}; "
            "make one of it with fastinterp.models.wrap."
        )


def require_inner(
    method: Method, eps: float, steps: int, step_size: float, random_start: bool
) -> None:
    """Raise unless the settings of the inner loop are in their range."""
    require_radius("eps", eps)
    require_radius("step_size", step_size)
    if steps < 0:
        raise InputError(f"steps must be at least 0, got {steps}.")
    if method.inner is not None:
        require_a_way_up(method.inner, random_start)
