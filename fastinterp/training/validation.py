"""Accuracy after each epoch, on images that are not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .._utils import processes
from .._utils.errors import InputError
from ..attacks.modes import eval_mode
from .batches import Batches

Attack = Callable[[Tensor, Tensor], Tensor]  # (x, y) -> x_adv, as PGD and torchattacks have it


class Validation:
    """Clean accuracy and, with an attack, accuracy under it.

    Args:
        attack: an attack on this model; the images that it returns for (x, y) are classified.

    Raises:
        InputError: the attack is no function, or attacks another network.
    """

    def __init__(self, model: nn.Module, batches: Batches, attack: Attack | None) -> None:
        if attack is not None and not callable(attack):
            raise InputError(
                "val_attack must be a function of (images, labels), such as a PGD of the network "
                f"that is trained, got {attack!r}."
            )
        attacked = getattr(attack, "model", model)
        if isinstance(attacked, torch.nn.Module) and attacked is not model:
            raise InputError(
                "val_attack attacks another network than the one that is trained; "
                "make it with the trainer's model."
            )
        self.model, self.batches, self.attack = model, batches, attack

    def measure(self) -> dict[str, float]:
        """val_accuracy and, with an attack, val_robust_accuracy, between 0 and 1."""
        device = next(self.model.parameters()).device
        correct = torch.zeros(3, dtype=torch.int64, device=device)  # at x, at x', and all
        with eval_mode(self.model):
            # Of several processes each measures some of the batches.
            for x, y in islice(self.batches.once(), processes.rank(), None, processes.world()):
                x, y = x.to(device), y.to(device)
                correct[2] += len(x)
                shown = [x] if self.attack is None else [x, _attacked(self.attack, x, y)]
                with torch.no_grad():
                    for i, images in enumerate(shown):
                        correct[i] += (self.model(images).argmax(dim=1) == y).sum()
        correct = processes.add_up(correct)
        clean, robust, _ = (correct.double() / correct[2]).tolist()
        measured = {"val_accuracy": clean}
        return measured if self.attack is None else measured | {"val_robust_accuracy": robust}


def _attacked(attack: Attack, x: Tensor, y: Tensor) -> Tensor:
    with torch.enable_grad():
        x_adv = attack(x, y)
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        got = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise InputError(
            f"val_attack must return images of the shape that it was given, {tuple(x.shape)}, "
            f"got {got}."
        )
    return x_adv.detach()


def is_best(history: list[dict[str, Any]], robust_method: bool) -> bool:
    """Whether the last epoch's network is better than all before it.

    It is judged under attack if there was one. A robust method has its best clean accuracy at the
    very start, so without an attack it has no best network.
    """
    score = _score(history[-1], robust_method)
    return score > max((_score(row, robust_method) for row in history[:-1]), default=-math.inf)


def _score(row: Mapping[str, Any], robust_method: bool) -> float:
    robust = row.get("val_robust_accuracy")
    if robust is None and not robust_method:
        robust = row.get("val_accuracy")
    return -math.inf if robust is None else float(robust)
