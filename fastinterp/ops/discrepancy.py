"""The softmax-weighted l1 discrepancy between the maps of two images, eq. (8), and its gradient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._utils.require import require_integers, require_one_of, require_range
from . import _backend
from ._validate import are_alike, is_unusual, mismatch, require_readable

Reduction = Literal["weighted", "1-class"]
REDUCTIONS: tuple[Reduction, ...] = ("weighted", "1-class")

# What the forward pass saves for the backward pass (csrc/saved.h).
SAVE_NOTHING, SAVE_GRADIENT, SAVE_SIGNS = 0, 1, 2


# 1. Reference
def reference(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> Tensor:
    """Plain torch: features, features_adv [N, K, h, w], weight [C, K], labels [N] -> D [N]."""
    positions = features.shape[2] * features.shape[3]
    # CAM is linear in A: one product with A' - A gives the difference of all maps.
    difference = torch.matmul(weight, (features_adv - features).flatten(2)) / positions
    by_class = difference.abs().sum(dim=2)  # [N, C]
    true_class = by_class.gather(1, labels[:, None]).squeeze(1)  # [N]
    if reduction == "1-class":
        return true_class
    logits = torch.nn.functional.linear(features_adv.mean(dim=(2, 3)), weight, bias)
    is_true = torch.nn.functional.one_hot(labels, weight.shape[0]).bool()
    others = torch.softmax(logits.masked_fill(is_true, -torch.inf), dim=1)
    return 0.5 * true_class + 0.5 * (others * by_class).sum(dim=1)


def reference_and_gradient(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> tuple[Tensor, Tensor]:
    """Plain torch: D [N] as `reference` gives it, and d D / d A' [N, K, h, w]."""
    if _backend.is_transformed():  # where no tensor can be made to require a gradient

        def function(adv: Tensor) -> Tensor:
            return reference(features, adv, weight, labels, bias, reduction)

        value, pull_back = torch.func.vjp(function, features_adv)  # type: ignore[misc]
        return value, pull_back(torch.ones_like(value))[0]
    leaf = features_adv.detach().requires_grad_()
    with torch.enable_grad():
        value = reference(features.detach(), leaf, weight.detach(), labels, bias, reduction)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


# 2. Fake
def _fake(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    weighted: bool,
    save: int,
) -> tuple[Tensor, Tensor, Tensor]:
    count, classes = features.shape[0], weight.shape[0]
    accumulate = torch.float64 if features.dtype == torch.float64 else torch.float32
    saved = features.new_empty((0,))
    if save == SAVE_GRADIENT:
        saved = torch.empty_like(features_adv)
    elif save == SAVE_SIGNS and features.device.type == "cpu":
        positions = features.shape[2] * features.shape[3]
        saved = features.new_empty((count, classes, positions), dtype=torch.int8)
    coefficients = features.new_empty((count, 2, classes), dtype=accumulate)
    return features.new_empty((count,)), saved, coefficients


def _fake_backward(
    grad: Tensor,
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    coefficients: Tensor,
    signs: Tensor,
    need_features: bool,
    need_features_adv: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    def empty(like: Tensor, needed: bool, layout: torch.memory_format) -> Tensor:
        return torch.empty_like(like, memory_format=layout) if needed else like.new_empty((0,))

    return (
        empty(features, need_features, torch.preserve_format),
        empty(features_adv, need_features_adv, torch.preserve_format),
        empty(weight, need_weight, torch.contiguous_format),
    )


# 3. Autograd: csrc/autograd/discrepancy.cpp, which calls this for second derivatives.
def _differentiable(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    weighted: bool,
) -> Tensor:
    return reference(
        features, features_adv, weight, labels, bias, "weighted" if weighted else "1-class"
    )


# 4. Backend: kernels in C++ and CUDA; plain torch where they were not built.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::discrepancy", _fake)
    torch.library.register_fake("fastinterp::discrepancy_backward", _fake_backward)
    torch.library.impl(
        "fastinterp::discrepancy_reference", "CompositeImplicitAutograd", _differentiable
    )


# 5. Public
def discrepancy(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
    validate: bool = True,
) -> Tensor:
    """Interpretability discrepancy of eq. (8) between the CAMs of x and x', per image.

    With S_c = || L(x, c) - L(x', c) ||_1 and the maps of eq. (1), "weighted" gives
    D = 1/2 S_t + 1/2 sum_{i != t} p_i S_i, where p is the softmax of the logits at x' over the
    classes other than the true one, t. The gradient flows through p. "1-class" gives S_t.

    The maps are never stored, at most their signs. When `features_adv` is the only input that needs
    a gradient (the inner loop of training and attacks), the forward pass computes it too. Second
    derivatives work; they go through the plain torch formula.

    Args:
        features: A of the clean images, [N, K, h, w].
        features_adv: A of the perturbed images, same shape, dtype and device.
        weight: the linear classifier [C, K], C >= 2, same dtype and device.
        labels: the true classes [N], integers.
        bias: the classifier's bias [C], if it has one; it enters p only.
        reduction: "weighted" (eq. 8) or "1-class".
        validate: check that labels lie in 0..C-1. On a GPU the check waits for the device; loops
            that checked their labels before pass False. A label out of range then gives NaN on a
            GPU and a ValueError on a CPU.

    Returns:
        D [N], in the features' dtype (half types accumulate in float32).

    Raises:
        InputError: shapes, dtypes, devices, labels or reduction do not fit.
    """
    labels = _require_fit(
        "discrepancy", features, features_adv, weight, labels, bias, reduction, validate
    )
    if not _backend.is_native(features):
        return reference(features, features_adv, weight, labels, bias, reduction)
    save = SAVE_NOTHING
    if torch.is_grad_enabled():
        if features.requires_grad or weight.requires_grad:
            save = SAVE_SIGNS
        elif features_adv.requires_grad:
            save = SAVE_GRADIENT
    value, _, _ = torch.ops.fastinterp.discrepancy(
        features, features_adv, weight, labels, bias, reduction == "weighted", save
    )
    return value  # type: ignore[no-any-return]


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

    One pass of the fused op computes both and records no graph. Backpropagate the gradient to the
    images with
    `torch.autograd.grad(features_adv, x_adv, gradient)`.

    Arguments and errors as in `fastinterp.ops.discrepancy`; whether a tensor requires a gradient
    does not matter.

    Returns:
        D [N], in the features' dtype, and the gradient [N, K, h, w], laid out like features_adv:
        new tensors, which the caller may write into.
    """
    labels = _require_fit(
        "discrepancy_and_gradient",
        features,
        features_adv,
        weight,
        labels,
        bias,
        reduction,
        validate,
    )
    if not _backend.is_native(features):
        return reference_and_gradient(features, features_adv, weight, labels, bias, reduction)
    # Inputs without a graph record none; torch.no_grad would take a microsecond longer.
    value, grad, _ = torch.ops.fastinterp.discrepancy(
        features.detach() if features.requires_grad else features,
        features_adv.detach(),
        weight.detach() if weight.requires_grad else weight,
        labels,
        None if bias is None else bias.detach(),
        reduction == "weighted",
        SAVE_GRADIENT,
    )
    return value, grad


def _require_fit(
    op: str,
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    reduction: Reduction,
    validate: bool,
) -> Tensor:
    """Raise unless the arguments belong together; return the labels as int64."""
    if not isinstance(labels, Tensor) or labels.dtype is not torch.int64:
        labels = require_integers(f"{op}: labels", labels)
    if not (
        are_alike(features, features_adv, weight)
        and len(maps := features.shape) == 4
        and features_adv.shape == maps
        and len(classifier := weight.shape) == 2
        and classifier[1] == maps[1]
        and classifier[0] >= 2
        and maps[1] * maps[2] * maps[3] > 0
        and (bias is None or (are_alike(weight, bias) and bias.shape == (classifier[0],)))
        and labels.shape == (maps[0],)
        and labels.device == features.device
        and not is_unusual(labels)
    ):
        raise mismatch(
            op,
            "features and features_adv [N, K, h, w], weight [C, K], labels [N] and bias [C] or "
            "None, where only N may be 0 and C >= 2, all on one device, all but the labels of one "
            "floating-point dtype",
            features=features,
            features_adv=features_adv,
            weight=weight,
            labels=labels,
            bias=bias,
        )
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        require_one_of(f"{op}: reduction", reduction, REDUCTIONS)
    if validate and not torch.compiler.is_compiling():
        require_readable(op, "labels", labels)
        require_range(op, "labels", labels, weight.shape[0])
    return labels
