"""Attacks one after another, so that an image's verdict never depends on its batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import CrossEntropy, Objective, Outputs, SeededStart, ascend
from ..attacks.ascent import Keep
from ..attacks.threats import BALLS
from ..models.gap import GapClassifier, Needs
from ..ops.pgd_step import Norm
from .measuring import misclassified


@dataclass(frozen=True)
class Budget:
    """What an attacker may do to an image.

    Attributes:
        norm, eps: of the ball around x, in pixel units.
        steps: of each try.
        step_size: of one step.
        seed: of random starts.
    """

    norm: Norm
    eps: float
    steps: int
    step_size: float
    seed: int = 0


@dataclass(frozen=True)
class Try:
    """One attack on a batch: what is climbed, from where, and which iterate is judged.

    Attributes:
        objective: climbed.
        step_size: of one step, in pixel units.
        random_start: start at a random point of the ball instead of at x.
        keep: which iterate is judged; see `fastinterp.attacks.ascend`.
        everyone: attack images that are already fooled as well. The last bits of a convolution may
            depend on the batch's size; with everyone in it, x' is bit for bit that of this try
            alone.
    """

    objective: Objective
    step_size: float
    random_start: bool = False
    keep: Keep = "first_fooled"
    everyone: bool = False


def attack_in_turn(
    model: nn.Module,
    tries: Sequence[Try],
    budget: Budget,
    x: Tensor,
    y: Tensor,
    *,
    fooled: Tensor,
    first: int = 0,
) -> Tensor:
    """Which images some try fools; an image that is fooled leaves the batch.

    Args:
        model: in eval mode.
        tries: the attacks, in turn.
        budget: shared by all tries. With an eps or steps of 0 the images themselves are judged.
        x, y: images [N, C_in, H, W] and true classes [N], on the model's device.
        fooled: the images known to be fooled before, bool [N].
        first: the number of the first image in the whole set, which seeds its random starts.

    Returns:
        bool [N]. Each x' was classified once more, as an image of its own.
    """
    if budget.eps == 0 or budget.steps == 0:
        return fooled | misclassified(model, x, y)
    fooled = fooled.clone()
    for number, one in enumerate(tries):
        left = (~fooled).nonzero().squeeze(1)
        if len(left) == 0:
            break
        rows = torch.arange(len(x), device=x.device) if one.everyone else left
        seeds = [image_seed(budget.seed, number, first + row) for row in rows.tolist()]
        x_adv = ascend(
            model,
            SeededStart(BALLS[budget.norm](budget.eps, one.step_size), seeds),
            one.objective,
            x[rows],
            y[rows],
            budget.steps,
            random_start=one.random_start,
            keep=one.keep,
        )
        fooled[rows] |= misclassified(model, x_adv, y[rows])
    return fooled


def image_seed(seed: int, number: int, image: int) -> int:
    """A 32-bit seed for one image in one try: torch's CPU generator reads no more bits."""
    return int(np.random.SeedSequence((seed, number, image)).generate_state(1)[0])


def print_seeds(seed: int, number: int, x: Tensor) -> list[int]:
    """Seeds for images x [N, ...] in one try that depend on their pixels, not on their places."""
    pixels = [image.numpy().tobytes() for image in x.detach().cpu().contiguous()]
    return [image_seed(seed, number, zlib.crc32(each)) for each in pixels]


class FlushedCrossEntropy(CrossEntropy):
    """Cross-entropy as the paper's program climbed it: gradients below 2^-126 count as zero.

    TensorFlow flushes such numbers, torch keeps them. An image whose true class leads by about 85
    or more has no larger gradient, so that program could not move it, and the paper's tables count
    it as robust. Here the gradient by the feature maps is flushed, on every device alike. It is the
    same at all positions of a map, and the same as the gradient by the map's sum.
    """

    needs: Needs = "sums"

    def prepare(self, clean: Outputs, labels: Tensor) -> Callable[[Outputs], Tensor]:
        cross_entropy = super().prepare(clean, labels)
        smallest = torch.finfo(torch.float32).tiny

        def value(adv: Outputs) -> Tensor:
            if isinstance(adv.model, GapClassifier) and adv.features.requires_grad:
                adv.features.register_hook(  # type: ignore[no-untyped-call]
                    lambda grad: grad.masked_fill(grad.abs() < smallest, 0.0)
                )
            return cross_entropy(adv)

        return value
