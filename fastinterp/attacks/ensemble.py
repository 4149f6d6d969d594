"""Attacks one after another: an image that one of them fools leaves the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .ball_attack import BallAttack
from .modes import convolutions_in, eval_mode
from .seeds import start_seeds
from .watch import require_finite_logits

Attack = Callable[[Tensor, Tensor], Tensor]
"""Images [N, ...] and labels [N] -> x_adv [N, ...]."""

WITHSTANDS = -1
FOOLED_BEFORE = -2


@dataclass(frozen=True)
class Seeded:
    """`PGD` or `APGD` whose random starts depend on an image's pixels, not on its batch.

    Attributes:
        attack: the attack.
        seed: the user's.
        purpose: a word that tells this attack's starts from those of others.
    """

    attack: BallAttack
    seed: int
    purpose: str

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.attack(x, y, seeds=start_seeds(x, self.seed, self.purpose))


@dataclass(frozen=True)
class InTurn:
    """Several attacks as one: x_adv of the first that fools the model, else that of the last."""

    model: nn.Module
    attacks: Mapping[str, Attack]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        by = torch.full_like(y, WITHSTANDS)
        return attack_in_turn(self.model, self.attacks, x, y, by)


def attack_in_turn(
    model: nn.Module,
    attacks: Mapping[str, Attack],
    x: Tensor,
    y: Tensor,
    by: Tensor,
    *,
    everyone: bool = False,
    after: Callable[[int], None] = lambda number: None,
    first: int = 0,
) -> Tensor:
    """Attack a batch; each x' is classified once more, in exact float32.

    Args:
        model: images -> logits; it runs in eval mode.
        attacks: by their names, in turn.
        x, y: images [N, ...] and true classes [N].
        by: int64 [N], written to: the number of the attack that fools an image. Images that
            `WITHSTANDS` are attacked.
        everyone: attack all images, so that the batch stays as it is.
        after: called with the number of attacks that are done.
        first: number of the first attack to run; those before it are done.

    Returns:
        x_adv, like x: where no attack succeeds, the last one's; x itself where none was run.

    Raises:
        InputError: a logit at some x' is not finite.
    """
    x_adv = x.detach().clone()
    for number, attack in enumerate(attacks.values()):
        if number < first:
            continue
        left = (by == WITHSTANDS).nonzero().squeeze(1)
        rows = torch.arange(len(x), device=x.device) if everyone else left
        if len(left) > 0:
            x_adv[rows] = attack(x[rows], y[rows])
            wrong = torch.zeros_like(by, dtype=torch.bool)
            wrong[rows] = _predicted(model, x_adv[rows]) != y[rows]
            by[wrong & (by == WITHSTANDS)] = number
        after(number + 1)
    return x_adv


@torch.no_grad()
def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    with eval_mode(model), convolutions_in("float32"):
        logits = model(x)
    require_finite_logits("attack", logits)
    predicted: Tensor = logits.argmax(dim=1)
    return predicted
