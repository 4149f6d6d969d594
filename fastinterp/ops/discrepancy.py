"""The softmax-weighted l1 discrepancy between the maps of two images, eq. (8)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_labels, require_range
from . import _backend
from ._validate import require_features_and_weight, require_like, require_tensor, shape_of

Reduction = Literal["weighted", "1-class"]

# What the op leaves behind for its backward pass (csrc/keep.h).
KEEP_NOTHING, KEEP_GRADIENT, KEEP_SIGNS = 0, 1, 2

# What a kernel raises that cannot take its arguments. `explain_refusal` then says why: in a loop,
# asking beforehand would cost as much as the arithmetic of a small batch.
REFUSALS = (AttributeError, RuntimeError, TypeError, ValueError)


# 1. Reference
def reference(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "weighted",
) -> Tensor:
    """Plain torch: features, features_adv [N, K, h, w], weight [C, K], labels [N] -> [N]."""
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


# 2. Fake
def _fake(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    weighted: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    count, classes = features.shape[0], weight.shape[0]
    accumulate = torch.float64 if features.dtype == torch.float64 else torch.float32
    kept = features.new_empty((0,))
    if keep == KEEP_GRADIENT:
        kept = torch.empty_like(features_adv)
    elif keep == KEEP_SIGNS and features.device.type == "cpu":
        positions = features.shape[2] * features.shape[3]
        kept = features.new_empty((count, classes, positions), dtype=torch.int8)
    return (
        features.new_empty((count,)),
        kept,
        features.new_empty((count, 2, classes), dtype=accumulate),
    )


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
    nothing = features.new_empty((0,))
    return (
        torch.empty_like(features) if need_features else nothing,
        torch.empty_like(features_adv) if need_features_adv else features.new_empty((0,)),
        torch.empty_like(weight, memory_format=torch.contiguous_format)
        if need_weight
        else features.new_empty((0,)),
    )


# 3. Autograd: csrc/autograd/discrepancy.cpp. Under create_graph it comes back to the reference.
def _differentiable(
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    weighted: bool,
) -> Tensor:
    reduction: Reduction = "weighted" if weighted else "1-class"
    return reference(features, features_adv, weight, labels, bias, reduction)


# 4. Backends
def register() -> None:
    """Attach the Python halves to the compiled op. Called once, when the extension has loaded."""
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
        labels: the true classes [N], integers; int64 where `validate` is False.
        bias: the classifier's bias [C], if it has one; it enters p only.
        reduction: "weighted" (eq. 8) or "1-class".
        validate: check that labels lie in 0..C-1. On a GPU the check waits for the device; loops
            that checked their labels before pass False. There the kernel then gives NaN for a label
            out of range; on a CPU it refuses one all the same.

    Returns:
        D [N], in the features' dtype (half types accumulate in float32).

    Raises:
        InputError: shapes, dtypes, devices, labels or reduction do not fit.
    """
    op = "discrepancy"
    native = kernels_serve(op, features, reduction)
    if validate or not native or torch.compiler.is_compiling():
        labels = require_fitting(op, features, features_adv, weight, labels, bias, validate)
    try:
        if not native:
            return reference(features, features_adv, weight, labels, bias, reduction)
        keep = _what_to_keep(features, features_adv, weight)
        value, _, _ = _backend.callable_ops(features_adv).discrepancy(
            features, features_adv, weight, labels, bias, reduction == "weighted", keep
        )
    except REFUSALS:
        explain_refusal(op, features, features_adv, weight, labels, bias)
        raise
    return value  # type: ignore[no-any-return]


def _what_to_keep(features: Tensor, features_adv: Tensor, weight: Tensor) -> int:
    if not torch.is_grad_enabled():
        return KEEP_NOTHING
    if features.requires_grad or weight.requires_grad:
        return KEEP_SIGNS
    return KEEP_GRADIENT if features_adv.requires_grad else KEEP_NOTHING


def kernels_serve(op: str, features: Tensor, reduction: str) -> bool:
    """Whether the compiled op takes maps like these."""
    if reduction not in ("weighted", "1-class"):
        raise InputError(f'{op}: reduction must be "weighted" or "1-class", got {reduction!r}.')
    return isinstance(features, Tensor) and _backend.is_native(features)


def require_fitting(
    op: str,
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    validate: bool,
) -> Tensor:
    """Raise unless the tensors belong together; return the labels as int64."""
    require_features_and_weight(op, features, weight)
    require_tensor(op, "features_adv", features_adv, dims=4)
    require_like(op, "features", features, "features_adv", features_adv)
    labels = require_labels(op, "labels", labels, features)
    if weight.shape[0] < 2:
        raise InputError(f"{op}: at least 2 classes are needed, got {weight.shape[0]}.")
    if bias is not None:
        require_tensor(op, "bias", bias, dims=1)
        if bias.shape[0] != weight.shape[0]:
            raise InputError(f"{op}: bias must have shape [C], got {shape_of(bias)}.")
        require_like(op, "bias", bias, "a row of weight", weight[:, 0])
    if validate and not torch.compiler.is_compiling():
        require_range(op, "labels", labels, weight.shape[0])
    return labels


def explain_refusal(
    op: str,
    features: Tensor,
    features_adv: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
) -> None:
    """Raise what is wrong with arguments that a kernel refused, as far as that is known."""
    on_cpu = isinstance(labels, Tensor) and labels.is_cpu  # a GPU does not look at labels
    fitting = require_fitting(op, features, features_adv, weight, labels, bias, on_cpu)
    if fitting is not labels:
        raise InputError(f"{op}: with validate=False labels must be int64, got {labels.dtype}.")
