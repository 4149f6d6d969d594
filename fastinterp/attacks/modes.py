"""Leaving a caller's model and autograd settings as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the model into train or eval mode; afterwards every submodule has the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    if all(mode == training for _, mode in modes):
        yield
        return
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def eval_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Eval mode for a while."""
    return in_mode(model, training=False)


@contextmanager
def constant_parameters(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient for a while.

    A loop that climbs over images asks for none of theirs; saying so beforehand lets a compiled
    network leave their part of the backward pass out.
    """
    asking = [p for p in model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def own_autograd(device_type: str) -> Iterator[None]:
    """Record gradients in full precision, whatever the caller runs under.

    Callers may be inside no_grad, inference_mode (Lightning's test loop) or autocast.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device_type, enabled=False),
    ):
        yield
