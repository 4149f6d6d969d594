"""The gradient of the discrepancy of eq. (8) by A' alone, for loops that look at no value."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _backend
from .discrepancy import Reduction
from .discrepancy import reference as value_reference


# 1. Reference
def reference(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> Tensor:
    """Plain torch: as `fastinterp.ops.discrepancy.reference`, but d D / d A' [N, K, h, w]."""
    moving = features_adv.detach().requires_grad_()
    with torch.enable_grad():
        value = value_reference(features, moving, weight, labels, bias, reduction)
    (grad,) = torch.autograd.grad(value, moving, torch.ones_like(value))
    return grad


# 2. to 4. Fake, autograd, backends: the op is that of `discrepancy`, which leaves the gradient
# behind when asked to; nothing differentiates it again.


# 5. Public
@torch.no_grad()
def discrepancy_gradient(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> Tensor:
    """d D_n / d A'_n for each image n, in one pass of the fused op and without autograd.

    Seed a backward pass with it: `torch.autograd.grad(features_adv, x_adv, gradient)`. Arguments as
    `fastinterp.ops.discrepancy`; shapes and types are checked by the kernel, labels are not.

    Returns:
        [N, K, h, w], like features_adv: a new tensor, which the caller may write into.
    """
    features_adv = features_adv.detach()
    if not _backend.is_native(features):
        return reference(features, features_adv, weight, labels, bias, reduction)
    _, grad, _ = _backend.callable_ops(features_adv).discrepancy(
        features, features_adv, weight, labels, bias, reduction == "weighted", True
    )
    return grad  # type: ignore[no-any-return]
