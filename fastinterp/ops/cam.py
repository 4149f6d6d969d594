"""Class activation maps, eq. (1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backend
from ._constants import are_weights_constant
from ._validate import are_alike, mismatch


# 1. Reference
def reference(features: Tensor, weight: Tensor) -> Tensor:
    """Plain torch: features [N, K, h, w], weight [C, K] -> maps [N, C, h, w]."""
    count, _, height, width = features.shape
    maps = torch.matmul(weight, features.flatten(2)) / (height * width)  # [N, C, u]
    return maps.view(count, weight.shape[0], height, width)


# 2. Fake
def _fake(features: Tensor, weight: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], weight.shape[0], *features.shape[2:]))


def _fake_backward_features(grad: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _fake_backward_weight(grad: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


# 3. Autograd. The backward ops have no derivative: under create_graph plain torch replaces them.
def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, weight = ctx.saved_tensors
    need_features, need_weight = ctx.needs_input_grad
    grad_features = grad_weight = None
    if torch.is_grad_enabled():
        flat = grad.flatten(2) / features[0, 0].numel()  # [N, C, u]
        if need_features:
            grad_features = torch.matmul(weight.t(), flat).view_as(features)
        if need_weight:
            grad_weight = torch.matmul(flat, features.flatten(2).mT).sum(0)
    else:
        if need_features:
            grad_features = torch.ops.fastinterp.cam_backward_features(grad, features, weight)
        if need_weight:
            grad_weight = torch.ops.fastinterp.cam_backward_weight(grad, features, weight)
    return grad_features, grad_weight


# 4. Backend: kernels in C++ and CUDA; plain torch where they were not built.
if _backend.extension() is not None:
    torch.library.register_fake("fastinterp::cam", _fake)
    torch.library.register_fake("fastinterp::cam_backward_features", _fake_backward_features)
    torch.library.register_fake("fastinterp::cam_backward_weight", _fake_backward_weight)
    torch.library.register_autograd("fastinterp::cam", _backward, setup_context=_setup_context)


# 5. Public
def cam(features: Tensor, weight: Tensor) -> Tensor:
    """Class activation maps of every class, eq. (1): L[n, c] = (1/u) sum_k weight[c, k] A[n, k].

    The sum of a map over its u = h*w positions is the logit of that class, without the bias. No
    ReLU, no upsampling. Differentiable to any order.

    Args:
        features: A [N, K, h, w], float32, float64, bfloat16 or float16, any memory layout.
        weight: the linear classifier [C, K], same dtype and device.

    Returns:
        Maps [N, C, h, w] in the features' dtype (half types accumulate in float32).

    Raises:
        InputError: shapes, dtypes or devices do not fit together.
    """
    if not (
        are_alike(features, weight)
        and features.dim() == 4
        and weight.dim() == 2
        and features.shape[1] == weight.shape[1]
        and 0 not in (*features.shape[1:], weight.shape[0])
    ):
        raise mismatch(
            "cam",
            "features [N, K, h, w] and weight [C, K], where only N may be 0, of one floating-point "
            "dtype and on one device",
            features=features,
            weight=weight,
        )
    if weight.requires_grad and not torch.compiler.is_compiling() and are_weights_constant():
        weight = weight.detach()
    if _backend.is_native(features):
        return torch.ops.fastinterp.cam(features, weight)  # type: ignore[no-any-return]
    return reference(features, weight)
