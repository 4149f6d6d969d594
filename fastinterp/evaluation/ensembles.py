"""The attacks of each protocol, by name; an image counts as fooled if one of them fools it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import (
    APGD,
    FAB,
    CrossEntropy,
    Margin,
    MarginTowards,
    Objective,
    Outputs,
    Square,
    ascend,
)
from ..attacks.autoattack import autoattack
from ..attacks.ensemble import Attack, Seeded
from ..attacks.threats import BALLS
from ..models.gap import GapClassifier, Needs
from ..ops.pgd_step import Norm


@dataclass(frozen=True)
class Budget:
    """What an attacker may do to an image.

    Attributes:
        norm, eps: of the ball around x, in pixel units.
        steps: of each attack that takes gradient steps.
        step_size: of one step, where the protocol does not choose it.
        seed: of random numbers.
    """

    norm: Norm
    eps: float
    steps: int
    step_size: float
    seed: int = 0


def paper_attacks(model: nn.Module, budget: Budget, classes: int) -> dict[str, Attack]:
    """The paper's attack: PGD on the cross-entropy from x; the last iterate counts."""
    ball, objective = BALLS[budget.norm](budget.eps, budget.step_size), FlushedCrossEntropy()

    def pgd(x: Tensor, y: Tensor) -> Tensor:
        return ascend(model, ball, objective, x, y, budget.steps)

    return {"pgd": pgd}


def best_attacks(model: nn.Module, budget: Budget, classes: int) -> dict[str, Attack]:
    """Auto-PGD on four objectives, FAB towards few classes, and Square, which gives up early.

    `benchmarks/strength.py` compares it with AutoAttack. In l2 and l1 FAB finds much that Auto-PGD
    does not, so it aims at three classes there.
    """
    norm, eps, seed = budget.norm, budget.eps, budget.seed
    objectives: dict[str, Objective] = {
        "apgd-margin": Margin(),
        "apgd-ce": CrossEntropy(),
        "apgd-1st": MarginTowards(1),
        "apgd-2nd": MarginTowards(2),
    }
    attacks: dict[str, Attack] = {
        name: Seeded(APGD(model, eps, budget.steps, norm, objective=objective), seed, name)
        for name, objective in objectives.items()
    }
    aims = 1 if norm == "linf" else 3
    attacks["fab"] = FAB(model, eps, norm, budget.steps, n_target_classes=aims, seed=seed)
    attacks["square"] = Square(model, eps, 50 * budget.steps, norm, seed=seed, screen=True)
    return attacks


def standard_attacks(model: nn.Module, budget: Budget, classes: int) -> dict[str, Attack]:
    """AutoAttack's version "standard"."""
    return autoattack(model, budget.eps, budget.norm, budget.seed, classes=classes)


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
