"""The attacks of each protocol, by name; an image counts as fooled if one of them fools it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import (
    APGD,
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

# Radii, over eps, of the balls that wide searches of `best` begin with.
WIDE: dict[str, tuple[float, ...]] = {
    "linf": (3.0, 2.0, 1.5),
    "l2": (10.0, 6.0, 3.0, 1.5),
    "l1": (10.0, 6.0, 3.0, 1.5),
}


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
    """Auto-PGD on six objectives, also from larger balls, and Square, which gives up early.

    Searching larger balls first finds more where the gradient at x leads nowhere; in l2 and l1 it
    finds far more on MNIST. `benchmarks/strength.py` compares the ensemble with AutoAttack.
    """
    norm, eps, seed = budget.norm, budget.eps, budget.seed
    objectives: dict[str, Objective] = {
        "margin": Margin(),
        "ce": CrossEntropy(),
        "1st": MarginTowards(1),
        "2nd": MarginTowards(2),
        "3rd": MarginTowards(3),
        "4th": MarginTowards(4),
    }

    def apgd(name: str, wide: bool) -> Seeded:
        attack = APGD(
            model,
            eps,
            budget.steps,
            norm,
            objective=objectives[name],
            restarts=2 if wide and norm != "linf" else 1,
            radii=WIDE[norm] if wide else (),
        )
        return Seeded(attack, seed, name)

    first = norm != "linf"  # wide searches come first, on every objective
    attacks: dict[str, Attack] = {
        ("wide-" if first else "apgd-") + name: apgd(name, first) for name in objectives
    }
    if first:
        attacks["apgd-margin"] = apgd("margin", False)
    else:
        attacks |= {f"wide-{name}": apgd(name, True) for name in ("margin", "1st")}
    attacks["square"] = Square(
        model, eps, 50 * budget.steps, norm, seed=seed, screen=True, rescale=norm == "linf"
    )
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
