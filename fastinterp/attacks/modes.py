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
