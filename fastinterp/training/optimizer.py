"""The optimiser of a trainer: one that is given, one that is made, or Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from .._utils.errors import InputError
from .robust_loss import require_size

DEFAULT_LR = 1e-4
LARGEST_LR = 1e6  # Adam's steps are of this length; float32 ends at 3e38

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


def make_optimizer(
    model: nn.Module, optimizer: Optimizer | MakeOptimizer | None, lr: float | None
) -> Optimizer:
    """The optimiser that is given or that the function makes; without either, Adam.

    Raises:
        InputError: nothing to train, no optimiser, one of other parameters, or an lr that it would
            not get.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("The model has no parameter to train: every requires_grad is False.")
    if optimizer is None:
        lr = require_size("lr", DEFAULT_LR if lr is None else lr)
        if lr > LARGEST_LR:
            raise InputError(f"lr must be at most {LARGEST_LR:g}, got {lr!r}.")
        return torch.optim.Adam(parameters, lr=lr)
    if lr is not None:
        raise InputError(
            f"lr = {lr!r} is for Adam, which serves where no optimizer is given; give yours its "
            f"own, as in optimizer=lambda parameters: torch.optim.SGD(parameters, lr={lr!r})."
        )
    made: object = optimizer
    if not isinstance(optimizer, Optimizer) and callable(optimizer):
        made = optimizer(parameters)
    if not isinstance(made, Optimizer):
        got = repr(made) if made is optimizer else f"a function that made {made!r}"
        raise InputError(
            "optimizer must be an optimiser of the model's parameters, or a function that makes "
            f"one of them, such as torch.optim.AdamW, got {got}."
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(one) in own for group in made.param_groups for one in group["params"]):
        raise InputError(
            "The optimizer holds no parameter of the model; make it of model.parameters(), after "
            "wrap or a copy."
        )
    return made
