"""Class activation maps, eq. (1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backend
from ._validate import require_features_and_weight


# 1. Reference
def reference(features: Tensor, weight: Tensor) -> Tensor:
    """Plain torch: features [N, K, h, w], weight [C, K] -> maps [N, C, h, w]."""
    count, _, height, width = features.shape
    maps = torch.matmul(weight, features.flatten(2)) / (height * width)  # [N, C, u]
    return maps.view(count, weight.shape[0], height, width)


# 2. Fake
def _fake(features: Tensor, weight: Tensor) -> Tensor:
    count, _, height, width = features.shape
    return features.new_empty((count, weight.shape[0], height, width))


def _fake_backward_features(grad: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _fake_backward_weight(grad: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


# 3. Autograd. The map is bilinear, so its backward passes are differentiable ops themselves: under
# create_graph the reference, whose second derivatives torch knows, takes their place.
def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, weight = ctx.saved_tensors
    need_features, need_weight = ctx.needs_input_grad
    if torch.is_grad_enabled():
        positions = features.shape[2] * features.shape[3]
        flat = grad.flatten(2) / positions  # [N, C, u]
        by_features = torch.matmul(weight.t(), flat).view_as(features) if need_features else None
        by_weight = torch.matmul(flat, features.flatten(2).mT).sum(0) if need_weight else None
        return by_features, by_weight
    ops = torch.ops.fastinterp
    return (
        ops.cam_backward_features(grad, features, weight) if need_features else None,
        ops.cam_backward_weight(grad, features, weight) if need_weight else None,
    )


# 4. Backends
def register() -> None:
    """Attach the Python halves to the compiled op. Called once, when the extension has loaded."""
    torch.library.register_fake("fastinterp::cam", _fake)
    torch.library.register_fake("fastinterp::cam_backward_features", _fake_backward_features)
    torch.library.register_fake("fastinterp::cam_backward_weight", _fake_backward_weight)
    torch.library.register_autograd("fastinterp::cam", _backward, setup_context=_setup_context)


# 5. Public
def cam(features: Tensor, weight: Tensor) -> Tensor:
    """Class activation maps of every class, eq. (1): L[n, c] = (1/u) sum_k weight[c, k] A[n, k].

    The sum of a map over its u = h*w positions is the class's logit (without bias). No ReLU, no
    upsampling. Differentiable to any order.

    Args:
        features: A [N, K, h, w], float32, float64, bfloat16 or float16, any memory layout.
        weight: the linear classifier [C, K], same dtype and device.

    Returns:
        Maps [N, C, h, w] in the features' dtype (half types accumulate in float32).

    Raises:
        InputError: shapes, dtypes or devices do not fit together.
    """
    require_features_and_weight("cam", features, weight)
    if _backend.is_native(features):
        return torch.ops.fastinterp.cam(features, weight)  # type: ignore[no-any-return]
    return reference(features, weight)
