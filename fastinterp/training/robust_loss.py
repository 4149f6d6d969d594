"""The loss of one batch by a method: the inner maximisation over x', then the outer loss."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import is_readable, require_labels, require_range
from ..attacks import Ball, LinfBall, Outputs, ascend
from ..attacks.checks import require_images
from ..attacks.modes import MODAL, own_modes
from ..attacks.outputs import Precision
from ..attacks.threats import BALLS, Threat
from ..interpreters.watch import unwatched
from ..models.freeze import fold
from ..models.gap import GapClassifier, require_network
from ..ops.pgd_step import Norm
from .config import TrainConfig
from .methods import Method


class BatchLoss(NamedTuple):
    """The loss of a batch and the passes that it was computed from.

    Attributes:
        loss: mean over the batch, a scalar with its graph.
        clean: the pass at x. If the network was folded for the method, its feature maps are the
            class maps or the logits.
        adv: the pass at x'; None for a method without x'.
    """

    loss: Tensor
    clean: Outputs
    adv: Outputs | None


def robust_loss(
    model: nn.Module,
    method: Method,
    config: TrainConfig,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat | None,
    generator: torch.Generator,
    precision: Precision,
    images: int | None = None,
    x_adv: Tensor | None = None,
) -> BatchLoss:
    """Search x' as the method says and compute its outer loss, ready for `backward`.

    The clean pass made for the loss also gives the inner loop its constants, so features at x are
    computed once. All passes go through the shortest network that gives what the method reads (see
    `fastinterp.models.freeze.fold`). Nothing waits for a GPU; nothing is checked here.

    Args:
        x: images [N, C_in, H, W] in [0, 1], on the model's device.
        y: true classes [N], int64.
        threat: the ball that contains x' (see `ball`); None for x' = x.
        generator: draws the random start.
        precision: of the inner loop's passes; the caller's `convolutions_in` holds for the others.
        images: number of images of the whole batch, if x is a process's share of it. The loss is
            then the sum over x by that number.
        x_adv: x' if it is known already; nothing is searched then.

    Raises:
        InputError: the network depends on its mode, and another thread uses it at the same time.
    """
    channels_last = config.channels_last
    if channels_last is None:  # on a CPU a quarter faster for Small, half for Pool
        channels_last = x.device.type == "cpu" and x.dtype == torch.float32
    if channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    with own_modes(model), unwatched():
        network = fold(model, method.needs, x)
        outer = config.outer_precision
        clean = Outputs(network, x, outer, images=images)
        _ = clean.logits  # the one pass at x, made before the inner loop borrows it
        height, width = x.shape[2:]
        of_maps = method.needs != "logits" and isinstance(network, GapClassifier)
        if of_maps and clean.features.shape[2:].numel() == 1:
            warnings.warn(
                f"{method.name}: images of {height}x{width} give feature maps of one position, "
                "where class maps say no more than logits; use larger images or fewer strides.",
                stacklevel=2,
            )
        adv: Outputs | None = None
        if method.inner is not None and threat is None:
            adv = clean
        elif method.inner is not None and threat is not None:
            if x_adv is None:
                x_adv = ascend(
                    network,
                    threat,
                    method.inner,
                    x,
                    y,
                    config.steps if method.one_step is None else 1,
                    random_start=config.random_start or method.one_step is not None,
                    generator=generator,
                    clean=clean if outer == "float32" and _shares_clean(model, x) else None,
                    precision=precision,
                    images=images,
                )
            adv = Outputs(network, x_adv, outer)
        losses = method.loss(clean, adv, y)
        loss = losses.mean() if images is None else losses.sum() / images
        return BatchLoss(loss, clean, adv)


def threat_of(
    method: Method, config: TrainConfig, eps: float, share: tuple[int, int] | None = None
) -> Ball | None:
    """The ball that contains x'; None for eps = 0, where x' is x."""
    if method.one_step is None or eps == 0:
        return ball(eps, config.step_size, config.norm, share)
    noise, step, projected = method.one_step
    radius = eps if projected else (noise + step) * eps  # which the step cannot leave
    return NoisyBall(radius, step * eps, share=share, start=noise * eps)


@dataclass(frozen=True)
class NoisyBall(LinfBall):
    """A linf ball whose random starts are drawn from another one, of radius `start`."""

    start: float = field(default=0.0, kw_only=True)

    @property
    def start_radius(self) -> float:
        return self.start


def ball(
    eps: float, step_size: float, norm: Norm, share: tuple[int, int] | None = None
) -> Ball | None:
    """The ball that contains x'; None for eps = 0, where x' is x."""
    return None if eps == 0 else BALLS[norm](eps, step_size, share=share)


def _shares_clean(model: nn.Module, x: Tensor) -> bool:
    """Whether the inner loop can use the pass at x that was made for the outer loss.

    Sharing it saves 0.5% of an Int iteration on MNIST Small with 40 steps, 4.6% with 7.
    The loop runs in eval mode and full precision, which gives other outputs in a network with batch
    normalisation or dropout, and under autocast.
    """
    if torch.is_autocast_enabled(x.device.type):
        return False
    for module in model.modules():  # noqa: SIM110 (a generator would be slower)
        if module.training and isinstance(module, MODAL):
            return False
    return True


def require_trainable(model: object, method: Method) -> None:
    """Raise unless the model is a bare network, and one that the method can train."""
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        raise InputError(
            "The search for x' runs on the bare network, but the network is inside "
            f"{type(model).__name__}; wrap a module whose forward returns "
            "IntLoss(...)(network, x, y) instead, or give a trainer the bare network, which it "
            "trains on all processes of torchrun (see docs/scaling.md)."
        )
    require_network("Training", model)
    if isinstance(model, nn.Module) and not isinstance(model, GapClassifier):
        method.require_served(model)


def require_known_labels(who: str, y: Tensor, x: Tensor, num_classes: int) -> Tensor:
    """y [N] as int64, if it holds a class for each image of x in [0, 1].

    Ranges are not checked on a GPU.
    """
    y = require_labels(who, "labels", y, x)
    if is_readable(x) and x.is_floating_point() and x.dim() > 1:
        require_images(who, x, 0.0, 1.0)
    if y.device.type == "cpu":
        require_range(who, "labels", y, num_classes)
    return y
