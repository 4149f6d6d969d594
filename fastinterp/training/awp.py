"""Adversarial weight perturbation (Wu et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def perturbed_weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are perturbed: weights of layers, not biases and gains."""
    return [p for p in model.parameters() if p.requires_grad and p.dim() > 1]


@contextmanager
def perturbed(
    weights: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], size: float
) -> Iterator[None]:
    """Move each layer's weights w to w + size ||w|| g / ||g|| for a while.

    That is one step of the ascent of the loss over the weights, projected to the sphere of radius
    size ||w|| around w, layer by layer.

    Args:
        gradients: of the loss; None for weights that it does not depend on.
    """
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                length = gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
                weight.add_(gradient * (size * weight.norm() / length))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, kept, strict=True):
                weight.copy_(old)
