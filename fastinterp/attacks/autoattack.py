"""AutoAttack: an ensemble without settings, the field's common measure of robustness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.keywords import hint_keywords
from .._utils.require import require_nonnegative, require_one_of, require_seed
from ..ops.pgd_step import Norm
from .apgd import APGD
from .checks import as_module, count_classes, require_batch
from .ensemble import WITHSTANDS, Attack, InTurn, Seeded, attack_in_turn
from .expectation import MeanOfPasses
from .fab import FAB
from .objectives import DLR, CrossEntropy, DLRTowards, Margin, MarginTowards, Objective
from .square import Square
from .threats import BALLS

Version = Literal["standard", "plus", "rand"]
STEPS = 100
QUERIES = 5000
SAMPLES = 20  # passes that "rand" averages


@hint_keywords
class AutoAttack(Described):
    """AutoAttack (Croce and Hein, 2020): four attacks in turn, each on the images that are left.

    `x_adv = AutoAttack(model, eps=8 / 255)(x, y)`. The version "standard" runs Auto-PGD on the
    cross-entropy, targeted Auto-PGD on the DLR loss, targeted FAB, and Square. "plus" adds
    restarts and untargeted forms. "rand" is for random networks: Auto-PGD on cross-entropy and DLR,
    each pass the mean of 20. Random numbers of an image depend on its pixels and the seed alone.

    Differences from the authors' program: DLR needs four classes, margins take its place where
    there are fewer; "rand" averages logits, not gradients.

    Args:
        model: any classifier of images in [0, 1], a module (attacked in eval mode) or a function
            from images to logits; normalisation belongs inside it.
        eps: radius of the ball around x, in pixel units.
        norm: "linf", "l2" or "l1".
        version: "standard", "plus" or "rand".
        seed: of all random numbers.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float = 8 / 255,
        norm: Norm = "linf",
        version: Version = "standard",
        seed: int = 0,
    ) -> None:
        self.eps = require_nonnegative("AutoAttack: eps", eps)
        require_one_of("AutoAttack: norm", norm, BALLS)
        self.norm: Norm = norm
        self.version: Version = require_one_of("version", version, get_args(Version))
        self.seed = require_seed("AutoAttack: seed", seed)
        module = as_module("AutoAttack", model)
        self.model = MeanOfPasses(module, SAMPLES) if version == "rand" else module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, C_in, H, W] in [0, 1], on the model's device.
            y: true classes [N].

        Returns:
            x_adv, like x: an image that fools the model, or x itself.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; a gradient or logit is
                not finite.
        """
        y = require_batch("AutoAttack", self.model, x, y, False)
        by = torch.full_like(y, WITHSTANDS)
        x_adv = attack_in_turn(self.model, self.attacks(x), x, y, by)
        fooled = (by != WITHSTANDS).view(-1, *[1] * (x.dim() - 1))
        return torch.where(fooled, x_adv, x.detach())

    def attacks(self, x: Tensor) -> dict[str, Attack]:
        """The attacks by name, in turn, for images like x [N, ...]."""
        classes = count_classes("AutoAttack", self.model, x) if len(x) else 0
        return autoattack(
            self.model, self.eps, self.norm, self.seed, classes=classes, version=self.version
        )


def autoattack(
    model: nn.Module,
    eps: float,
    norm: Norm,
    seed: int,
    *,
    classes: int,
    version: Version = "standard",
) -> dict[str, Attack]:
    """The attacks of a version by name, for a network with so many classes."""
    few = classes < 4  # too few for DLR
    wide = 5 if norm == "l1" else 9

    def apgd(name: str, objective: Objective, restarts: int = 1) -> Seeded:
        attack = APGD(model, eps, STEPS, norm, objective=objective, restarts=restarts)
        return Seeded(attack, seed, name)

    def aimed(name: str) -> InTurn:
        aim = MarginTowards if few else DLRTowards
        ranks = range(1, min(wide, max(classes - 1, 1)) + 1)
        return InTurn(model, {f"{name} {r}": apgd(f"{name} {r}", aim(r)) for r in ranks})

    dlr = Margin() if few else DLR()
    # As in the authors' program, but in linf a scaled schedule finds more.
    square = Square(model, eps, QUERIES, norm, seed=seed, rescale=norm == "linf")
    if version == "rand":
        return {"apgd-ce": apgd("apgd-ce", CrossEntropy()), "apgd-dlr": apgd("apgd-dlr", dlr)}
    if version == "standard":
        return {
            "apgd-ce": apgd("apgd-ce", CrossEntropy(), restarts=5 if norm == "l1" else 1),
            "apgd-t": aimed("apgd-t"),
            "fab-t": FAB(model, eps, norm, n_target_classes=9, seed=seed),
            "square": square,
        }
    return {
        "apgd-ce": apgd("apgd-ce", CrossEntropy(), restarts=5),
        "apgd-dlr": apgd("apgd-dlr", dlr, restarts=5),
        "fab": FAB(model, eps, norm, restarts=5, seed=seed),
        "square": square,
        "apgd-t": aimed("apgd-t"),
        "fab-t": FAB(model, eps, norm, n_target_classes=9, seed=seed),
    }
