"""The kernels of the GPU, run on the CPU, against plain torch in float64.

`make check-device` runs the same tests once more on the device code itself.
"""

from __future__ import annotations

import pytest
import torch
from support import (
    DTYPES,
    EPS,
    assert_as_good_as_torch,
    block_op,
    needs_extension,
    relative_error,
)

from benchmarks.cases import IMAGE_SHAPES, LAYOUTS, ODD, MapCase, lay_out
from fastinterp.ops import reference
from fastinterp.ops.discrepancy import SAVE_GRADIENT
from fastinterp.ops.pgd_step import NORMS

pytestmark = needs_extension
# Sums of up to 300 terms in float32 or float64; results of half types are rounded once.
TOLERANCE = {dtype: 8 * eps if eps < 1e-5 else eps for dtype, eps in EPS.items()}
TOLERANCE[torch.float64] = 1e-12  # as in support.py


def truth_of(tensors, reduction: str, cotangent):
    leaves = [t.double().requires_grad_() for t in tensors[:3]]
    value = reference.discrepancy(
        *leaves, tensors[3], tensors[4].double(), reduction
    )  # fmt: skip
    return value, torch.autograd.grad(value, leaves, cotangent)


# Several tiles for each block of a cluster; several groups of classes;
# channels too many to stage in float64.
CLUSTERS = [MapCase(2, 20, 28, 28, 9), MapCase(1, 70, 12, 25, 37), MapCase(1, 300, 8, 9, 5)]


@pytest.mark.parametrize("how", ["", "_in_steps"])
@pytest.mark.parametrize("reduction", ["weighted", "1-class"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD + CLUSTERS, ids=str)
def test_discrepancy(case: MapCase, layout: str, reduction: str, how: str) -> None:
    backward = block_op(f"discrepancy_backward{how}")
    for dtype in DTYPES:
        tensors = case.tensors(dtype, layout=layout)
        features, features_adv, weight, labels, bias = tensors
        cotangent = torch.rand(case.images).to(dtype)
        weighted, nothing = reduction == "weighted", torch.empty(0)
        value, unit_grad, coefficients = block_op(f"discrepancy{how}")(
            features, features_adv, weight, labels, bias, weighted, SAVE_GRADIENT
        )
        known = cotangent, features, features_adv, weight, coefficients, nothing
        grads, alone = backward(*known, True, True, True), backward(*known, False, True, False)[1]
        truth, true_grads = truth_of(tensors, reduction, cotangent.double())
        _, unit_grads = truth_of(tensors, reduction, torch.ones_like(truth))
        pairs = [
            (value, truth),
            (unit_grad, unit_grads[1]),
            (alone, true_grads[1]),
            *zip(grads, true_grads, strict=True),
        ]
        for i, (found, expected) in enumerate(pairs):
            assert relative_error(found, expected) <= TOLERANCE[dtype], (i, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", [MapCase(2, 65, 13, 11, 33), MapCase(4, 512, 7, 7, 100)], ids=str)
def test_products_for_tensor_cores_keep_the_error_rule(
    case: MapCase, layout: str, dtype: torch.dtype
) -> None:
    tensors = case.tensors(dtype, layout=layout)
    for weighted, reduction in ((True, "weighted"), (False, "1-class")):
        ours = block_op("discrepancy")(*tensors, weighted, SAVE_GRADIENT)
        features, features_adv, weight, labels, bias = tensors
        results = []
        for wide in (dtype, torch.float64):
            leaf = features_adv.to(wide).requires_grad_()
            value = reference.discrepancy(
                features.to(wide), leaf, weight.to(wide), labels, bias.to(wide), reduction
            )
            results.append((value, torch.autograd.grad(value.sum(), leaf)[0]))
        for i, what in enumerate(("D", "dD/dA'")):
            assert_as_good_as_torch(ours[i], results[0][i], results[1][i], f"{what} {reduction}")


# Channels and classes that fill no tile; two blocks of classes; a last tile of one position.
TENSOR_CASES = [
    MapCase(2, 65, 13, 11, 33),
    MapCase(4, 512, 7, 7, 100),
    MapCase(3, 72, 5, 13, 32),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("reduction", ["weighted", "1-class"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", TENSOR_CASES, ids=str)
def test_gradients_from_tensor_cores_keep_the_error_rule(
    case: MapCase, layout: str, reduction: str, dtype: torch.dtype
) -> None:
    tensors = case.tensors(dtype, layout=layout)
    features, features_adv, weight, labels, bias = tensors
    cotangent = (torch.rand(case.images) + 0.5).to(dtype)
    _, _, coefficients = block_op("discrepancy")(*tensors, reduction == "weighted", SAVE_GRADIENT)
    known = cotangent, features, features_adv, weight, coefficients, torch.empty(0)
    ours = block_op("discrepancy_backward")(*known, True, True, True)
    results = []
    for wide in (dtype, torch.float64):
        leaves = [t.to(wide).requires_grad_() for t in (features, features_adv, weight)]
        value = reference.discrepancy(*leaves, labels, bias.to(wide), reduction)
        results.append(torch.autograd.grad(value, leaves, cotangent.to(wide)))
    for i, what in enumerate(("dD/dA", "dD/dA'", "dD/dW")):
        assert_as_good_as_torch(ours[i], results[0][i], results[1][i], what)
    for needed in ((True, False, False), (False, True, False), (False, False, True)):
        alone = block_op("discrepancy_backward")(*known, *needed)
        for i, wanted in enumerate(needed):
            assert torch.equal(alone[i], ours[i]) if wanted else alone[i].numel() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
def test_cam(case: MapCase, layout: str) -> None:
    for dtype in DTYPES:
        features, _, weight, *_ = case.tensors(dtype, layout=layout)
        leaves = [features.double().requires_grad_(), weight.double().requires_grad_()]
        truth = reference.cam(*leaves)
        cotangent = torch.randn_like(truth).to(dtype)
        expected = torch.autograd.grad(truth, leaves, cotangent.double())
        found = (
            block_op("cam")(features, weight),
            block_op("cam_backward_features")(cotangent, features, weight),
            block_op("cam_backward_weight")(cotangent, features, weight),
        )
        for a, b in zip(found, (truth, *expected), strict=True):
            assert relative_error(a, b) <= TOLERANCE[dtype], dtype


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_pgd_step(shape: tuple[int, ...], norm: str, layout: str) -> None:
    for dtype in DTYPES:
        x, noise, grad = (lay_out(torch.rand(shape).to(dtype), layout) for _ in range(3))
        x_adv = (x + 0.2 * (noise - 0.5)).clamp(0, 1)
        rows = torch.rand(shape[0]).to(dtype)
        for numbers in ((0.01, 0.05, None, None), (3.0, 2.0, None, None), (0.0, 0.0, rows, rows)):
            found = block_op("pgd_step")(
                x_adv, grad - 0.5, x, *numbers, 0.0, 1.0, NORMS.index(norm)
            )
            step_size, eps = (rows, rows) if numbers[2] is not None else numbers[:2]
            truth = reference.pgd_step(
                x_adv.double(), (grad - 0.5).double(), x.double(),
                step_size, eps, norm=norm,
            )  # fmt: skip
            assert relative_error(found, truth) <= TOLERANCE[dtype], dtype
