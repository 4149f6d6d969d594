"""ops.cam against its reference, in float64 and by torch's own checks."""

from __future__ import annotations

import pytest
import torch
from support import DEVICES, DTYPES, assert_as_good_as_torch, needs_extension
from torch import Tensor

from benchmarks.cases import LAYOUTS, ODD, MapCase
from fastinterp import InputError, ops
from fastinterp.ops import reference


def maps_and_grads(function, features: Tensor, weight: Tensor, cotangent: Tensor) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in (features, weight)]
    maps = function(*leaves)
    return [maps.detach(), *torch.autograd.grad(maps, leaves, cotangent.to(maps))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
def test_error_is_at_most_twice_that_of_plain_torch(
    case: MapCase, layout: str, device: str
) -> None:
    for dtype in DTYPES:
        features, cotangent_like, weight, *_ = case.tensors(dtype, device, layout)
        cotangent = reference.cam(cotangent_like, weight)
        ours = maps_and_grads(ops.cam, features, weight, cotangent)
        theirs = maps_and_grads(reference.cam, features, weight, cotangent)
        truth = maps_and_grads(reference.cam, features.double(), weight.double(), cotangent)
        for name, a, b, c in zip(("L", "dL/dA", "dL/dW"), ours, theirs, truth, strict=True):
            assert_as_good_as_torch(a, b, c, f"{name} {dtype}")


def test_derivatives_to_second_order() -> None:
    features, _, weight, *_ = MapCase(2, 3, 2, 2, 4).tensors(torch.float64)
    leaves = (features.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(ops.cam, leaves)
    assert torch.autograd.gradgradcheck(ops.cam, leaves)


@needs_extension
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    for layout in LAYOUTS:
        features, _, weight, *_ = MapCase(3, 5, 4, 3, 4).tensors(device=device, layout=layout)
        leaves = (features.requires_grad_(), weight.requires_grad_())
        torch.library.opcheck(torch.ops.fastinterp.cam.default, leaves)


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_as_one_graph(device: str) -> None:
    features, _, weight, *_ = MapCase(3, 5, 4, 3, 4).tensors(device=device)
    compiled = torch.compile(ops.cam, fullgraph=True, backend="aot_eager")
    leaf = features.requires_grad_()
    found = torch.autograd.grad(compiled(leaf, weight).square().sum(), leaf)
    expected = torch.autograd.grad(ops.cam(leaf, weight).square().sum(), leaf)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(device: str) -> None:
    features, _, weight, *_ = MapCase(0, 5, 4, 3, 4).tensors(device=device)
    found = maps_and_grads(ops.cam, features, weight, torch.zeros(0, 4, 4, 3, device=device))
    assert [t.shape for t in found] == [(0, 4, 4, 3), (0, 5, 4, 3), (4, 5)]


@pytest.mark.parametrize("device", DEVICES)
def test_repeats_bit_for_bit(device: str) -> None:
    features, _, weight, *_ = MapCase(21, 33, 9, 8, 17).tensors(device=device)
    cotangent = torch.rand(21, 17, 9, 8, device=device)
    first = maps_and_grads(ops.cam, features, weight, cotangent)
    second = maps_and_grads(ops.cam, features, weight, cotangent)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bad_input_is_one_sentence() -> None:
    features, _, weight, *_ = MapCase(3, 5, 4, 3, 4).tensors()
    calls = [
        (r"weight float32 \[4, 3\]", features, weight[:, :3]),
        (r"features float32 \[5, 4, 3\]", features[0], weight),
        (r"weight float32 \[5\]", features, weight[0]),
        ("weight float64", features, weight.double()),
        ("features int32", features.int(), weight),
        ("features None", None, weight),
        (r"features float32 \[3, 5, 0, 3\]", features[:, :, :0], weight),
    ]
    for match, *arguments in calls:
        with pytest.raises(InputError, match=match) as caught:
            ops.cam(*arguments)
        assert "\n" not in str(caught.value)
