"""The optimizer of a trainer, and how a CUDA graph can contain its step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._utils.errors import InputError
from .._utils.require import require_known_name

DEFAULT_LR = 1e-4
CPU = torch.device("cpu")
LARGEST_LR = 1e6  # Adam's steps are of this length; float32 ends at 3e38

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


NAMED: dict[str, tuple[Any, float, dict[str, Any]]] = {  # with lr by default, and settings
    "adam": (torch.optim.Adam, DEFAULT_LR, {}),
    "adamw": (torch.optim.AdamW, DEFAULT_LR, {}),
    "sgd": (torch.optim.SGD, 0.1, {"momentum": 0.9, "nesterov": True}),
}


def make_optimizer(
    model: nn.Module,
    optimizer: Optimizer | MakeOptimizer | str | None,
    lr: float | None,
    weight_decay: float = 0.0,
) -> Optimizer:
    """The optimizer that is given or named or that the function makes; without any, Adam.

    Raises:
        InputError: the model has nothing to train, `optimizer` is none or has other parameters, or
            it comes with an lr that it would not get.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("The model has no parameter to train: every requires_grad is False.")
    if optimizer is None or isinstance(optimizer, str):
        name = require_known_name("optimizer", optimizer or "adam", NAMED)
        kind, usual, settings = NAMED[name]
        lr = usual if lr is None else lr
        if lr > LARGEST_LR:
            raise InputError(f"lr must be at most {LARGEST_LR:g}, got {lr!r}.")
        named: Optimizer = kind(parameters, lr=lr, weight_decay=weight_decay, **settings)
        return named
    if weight_decay:
        raise InputError(
            f"weight_decay = {weight_decay!r} is for an optimizer given by name; give your "
            "optimizer its own."
        )
    if lr is not None:
        raise InputError(
            f"lr = {lr!r} is for the default optimizer, Adam; give your optimizer its own, as in "
            f"optimizer=lambda parameters: torch.optim.SGD(parameters, lr={lr!r})."
        )
    made = optimizer
    if not isinstance(optimizer, Optimizer) and callable(optimizer):
        made = optimizer(parameters)
    if not isinstance(made, Optimizer):
        got = repr(made) if made is optimizer else f"a function that made {made!r}"
        raise InputError(
            "optimizer must be an optimizer of the model's parameters, or a function that makes "
            f"one from them, such as torch.optim.AdamW, got {got}."
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(one) in own for group in made.param_groups for one in group["params"]):
        raise InputError(
            "The optimizer holds no parameter of the model; make it from model.parameters(), after "
            "wrap or a copy."
        )
    return made


def make_capturable(optimizer: Optimizer, device: torch.device, wanted: bool) -> list[Tensor]:
    """Move learning rates and step counts to the device, so that a graph can contain the step.

    Moves them back where that is not wanted, after a state from a GPU was loaded.

    Returns:
        Each group's learning rate, which a graph reads; empty where no graph can contain the step,
        which then runs after each replay.
    """
    able = wanted and all(_is_capturable(optimizer, group) for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        if "capturable" not in group:
            continue
        group["capturable"] = able
        if able:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        # Reading counts on a GPU from the host would wait for it at each parameter.
        place = device if able or group.get("fused") else CPU
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name in ("step", "mu_product"):  # mu_product is NAdam's
                if isinstance(state.get(name), Tensor):
                    state[name] = state[name].to(place)
    return [group["lr"] for group in optimizer.param_groups] if able else []


def _is_capturable(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether the step only launches kernels.

    Some of torch's loops over single parameters read the learning rate on the host: those of
    RMSprop and Adadelta do, Adam's does not.
    """
    if "capturable" not in group:
        return False
    loops = group.get("foreach") is False or bool(group.get("differentiable"))
    return not loops or isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)


def group_settings(optimizer: Optimizer) -> Hashable:
    """The optimizer and the numbers of its groups: what a graph that contains its step has fixed.

    Learning rates that are tensors are there by identity; a graph reads their values.
    """
    values = [value for group in optimizer.param_groups for value in group.values()]
    plain = (tuple(value) if isinstance(value, list) else value for value in values)
    return optimizer, *(value for value in plain if isinstance(value, Hashable))


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Set a learning rate; one that is a tensor is filled, because a graph may read it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def restore_lr_tensors(optimizer: Optimizer, tensors: list[Tensor]) -> None:
    """Copy learning rates that were replaced, for example by numbers, into the graph's tensors."""
    for group, lr in zip(optimizer.param_groups, tensors, strict=False):
        if group["lr"] is not lr:
            group["lr"] = lr.fill_(group["lr"])
