"""The discrepancy of eq. (8) with its gradient by A', for loops that write their own chain rule."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _backend
from .discrepancy import (
    KEEP_GRADIENT,
    REFUSALS,
    Reduction,
    explain_refusal,
    kernels_serve,
    require_fitting,
)
from .discrepancy import reference as value_reference


# 1. Reference
def reference(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> tuple[Tensor, Tensor]:
    """Plain torch: as `fastinterp.ops.reference.discrepancy`, and d D / d A' [N, K, h, w]."""
    moving = features_adv.detach().requires_grad_()
    with torch.enable_grad():
        value = value_reference(
            features.detach(),
            moving,
            weight.detach(),
            labels,
            None if bias is None else bias.detach(),
            reduction,
        )
    (grad,) = torch.autograd.grad(value, moving, torch.ones_like(value))
    return value.detach(), grad


# 2. to 4. Fake, autograd, backends: the op is that of `discrepancy`, which leaves the gradient
# behind when asked to; nothing differentiates it again.


# 5. Public
def discrepancy_and_gradient(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
    validate: bool = True,
) -> tuple[Tensor, Tensor]:
    """The discrepancy of eq. (8) and d D_n / d A'_n for each image n, without autograd.

    One pass of the fused op makes both, and no graph is recorded: this is what the inner loops of
    training and attacks call. Carry the gradient on to the images with
    `torch.autograd.grad(features_adv, x_adv, gradient)`.

    Arguments and errors as in `fastinterp.ops.discrepancy`; whether a tensor requires a gradient
    does not matter.

    Returns:
        D [N], in the features' dtype, and the gradient [N, K, h, w], like features_adv: new
        tensors, which the caller may write into.
    """
    op = "discrepancy_and_gradient"
    native = kernels_serve(op, features, reduction)
    if validate or not native or torch.compiler.is_compiling():
        labels = require_fitting(op, features, features_adv, weight, labels, bias, validate)
    try:
        if not native:
            return reference(features, features_adv, weight, labels, bias, reduction)
        with torch.no_grad():
            value, grad, _ = _backend.callable_ops(features_adv).discrepancy(
                features, features_adv, weight, labels, bias, reduction == "weighted", KEEP_GRADIENT
            )
    except REFUSALS:
        explain_refusal(op, features, features_adv, weight, labels, bias)
        raise
    return value, grad
