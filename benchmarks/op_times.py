"""The ops against plain torch, as thunks to time: one table for the CPU and the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.cases import REAL, REAL_IMAGE_SHAPES, MapCase
from fastinterp import ops

Thunk = Callable[[], object]
Named = tuple[str, dict[str, Thunk], int]  # title, what to time, bytes that must move at least


def discrepancy_cases(device: str) -> Iterator[Named]:
    """Forward and backward, the gradient for features_adv only: what the inner loop runs."""
    for case in REAL:
        features, features_adv, weight, labels, _ = case.tensors(device=device)
        inputs = (features, features_adv.requires_grad_(), weight, labels)
        thunks: dict[str, Thunk] = {
            "fused": lambda i=inputs: value_and_grad(ops.discrepancy, *i, validate=False),
            "reference": lambda i=inputs: value_and_grad(ops.reference.discrepancy, *i),
        }
        yield f"discrepancy {case}", thunks, 3 * features.nbytes


def value_and_grad(
    function: Callable[..., torch.Tensor], *inputs: torch.Tensor, **options: bool
) -> object:
    value = function(*inputs, **options)
    return torch.autograd.grad(value.sum(), inputs[1])


def cam_cases(device: str) -> Iterator[Named]:
    for case in REAL:
        features, _, weight, *_ = case.tensors(device=device)
        thunks = {
            "fused": lambda a=features, w=weight: ops.cam(a, w),
            "reference": lambda a=features, w=weight: ops.reference.cam(a, w),
        }
        yield f"cam {case}", thunks, features.nbytes + maps_bytes(case)


def maps_bytes(case: MapCase) -> int:
    return 4 * case.images * case.classes * case.height * case.width


def step_cases(device: str) -> Iterator[Named]:
    for shape in REAL_IMAGE_SHAPES:
        for norm in ("linf", "l2", "l1"):
            x = torch.rand(shape, device=device)
            x_adv = (x + 0.01 * torch.randn_like(x)).clamp(0, 1)
            grad = torch.randn_like(x)
            arguments = (x_adv, grad, x, 0.01, 0.03, 0.0, 1.0, norm)
            thunks = {
                "fused": lambda a=arguments: ops.pgd_step(*a),
                "fused in place": lambda a=arguments: ops.pgd_step(*a, inplace=True),
                "reference": lambda a=arguments: ops.reference.pgd_step(*a),
            }
            name = "x".join(str(n) for n in shape)
            yield f"pgd_step {norm} {name}", thunks, 4 * x.nbytes


def all_cases(device: str) -> Iterator[Named]:
    yield from discrepancy_cases(device)
    yield from cam_cases(device)
    yield from step_cases(device)
