"""ops.discrepancy against its reference, in float64 and by torch's own checks."""

from __future__ import annotations

import pytest
import torch
from support import (
    DEVICES,
    NAMES,
    needs_extension,
    relative_error,
    value_and_grads,
)
from torch import Tensor

from benchmarks.cases import LARGEST, LAYOUTS, ODD, MapCase
from fastinterp import InputError, ops
from fastinterp.ops import reference
from fastinterp.ops.discrepancy import SAVE_GRADIENT, SAVE_NOTHING, SAVE_SIGNS

REDUCTIONS = ["weighted", "1-class"]


def test_largest_sizes() -> None:
    tensors = LARGEST.tensors()
    truth_of = [t.double() if t.is_floating_point() else t for t in tensors]
    one = torch.ones(LARGEST.images)
    ours = value_and_grads(ops.discrepancy, tensors, "weighted", one)
    theirs = value_and_grads(reference.discrepancy, tensors, "weighted", one)
    truth = value_and_grads(reference.discrepancy, truth_of, "weighted", one)
    for name, a, b, c in zip(NAMES, ours, theirs, truth, strict=True):
        # Two float32 sums of 2048 terms: where torch's own order happens to be lucky, the bound of
        # twice its error is one of the same size, not an exact figure, so one more unit is let in.
        allowed = 2 * relative_error(b, c) + 2.0**-24
        assert relative_error(a, c) <= allowed, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
def test_inner_loop_gradient_is_the_full_one(case: MapCase, layout: str, device: str) -> None:
    features, features_adv, weight, labels, bias = case.tensors(torch.float64, device, layout)
    alone = features_adv.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    cotangent = torch.rand(case.images, dtype=torch.float64, device=device)
    value = ops.discrepancy(features, alone, weight, labels, bias=bias)
    (grad,) = torch.autograd.grad(value, alone, cotangent)
    truth = value_and_grads(
        reference.discrepancy, (features, features_adv, weight, labels, bias), "weighted", cotangent
    )
    torch.testing.assert_close(grad, truth[2], rtol=1e-10, atol=1e-13)
    assert grad.stride() == alone.stride()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("which", [(1,), (0, 1, 2, 4)], ids=["inner loop", "all inputs"])
def test_first_and_second_derivatives(which: tuple[int, ...], reduction: str) -> None:
    tensors = list(MapCase(2, 4, 3, 2, 3).tensors(torch.float64))
    leaves = [tensors[i].clone().requires_grad_() for i in which]

    def function(*values: Tensor) -> Tensor:
        inputs = list(tensors)
        for i, value in zip(which, values, strict=True):
            inputs[i] = value
        *maps, bias = inputs
        return ops.discrepancy(*maps, bias=bias, reduction=reduction)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@needs_extension
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("save", [SAVE_NOTHING, SAVE_GRADIENT, SAVE_SIGNS])
def test_opcheck(save: int, device: str) -> None:
    for layout in LAYOUTS:
        tensors = MapCase(3, 5, 4, 3, 4).tensors(torch.float32, device, layout)
        features, features_adv, weight, labels, bias = tensors
        features_adv.requires_grad_()
        weight.requires_grad_(save != SAVE_GRADIENT)
        arguments = (features, features_adv, weight, labels, bias, True, save)
        torch.library.opcheck(torch.ops.fastinterp.discrepancy.default, arguments)


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_as_one_graph(device: str) -> None:
    features, features_adv, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors(device=device)

    def function(features_adv: Tensor, weight: Tensor) -> Tensor:
        return ops.discrepancy(features * 2, features_adv * 2, weight, labels).sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for needs_weight in (False, True):
        leaves = [
            features_adv.clone().requires_grad_(),
            weight.clone().requires_grad_(needs_weight),
        ]
        wanted = leaves if needs_weight else leaves[:1]
        expected = torch.autograd.grad(function(*leaves), wanted)
        found = torch.autograd.grad(compiled(*leaves), wanted)
        torch.testing.assert_close(found, expected)


@needs_extension  # torch's own sums may depend on the threads
@pytest.mark.parametrize("device", DEVICES)
def test_repeats_bit_for_bit_and_whatever_the_threads(device: str) -> None:
    tensors = MapCase(21, 33, 9, 8, 17).tensors(device=device)
    cotangent = torch.rand(21, device=device)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        first = value_and_grads(ops.discrepancy, tensors, "weighted", cotangent)
        torch.set_num_threads(1)
        second = value_and_grads(ops.discrepancy, tensors, "weighted", cotangent)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_an_image_does_not_feel_its_batch(device: str) -> None:
    features, features_adv, weight, labels, _ = MapCase(9, 33, 9, 8, 17).tensors(device=device)
    whole = ops.discrepancy(features, features_adv, weight, labels)
    alone = [
        ops.discrepancy(features[i : i + 1], features_adv[i : i + 1], weight, labels[i : i + 1])
        for i in range(9)
    ]
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(device: str) -> None:
    tensors = MapCase(0, 5, 4, 3, 4).tensors(device=device)
    found = value_and_grads(ops.discrepancy, tensors, "weighted", torch.ones(0, device=device))
    assert found[0].shape == (0,)
    assert found[3].shape == (4, 5)
    assert not found[3].any()


@needs_extension
def test_a_gradient_written_over_is_never_taken_again() -> None:
    """The forward pass's gradient may be handed out itself; a second pass must then refuse."""
    features, features_adv, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors()
    value = ops.discrepancy(features, features_adv.requires_grad_(), weight, labels).sum()
    (first,) = torch.autograd.grad(value, features_adv, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, features_adv, retain_graph=True)
    assert torch.equal(second, kept)
    first.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value, features_adv)


def test_equal_images_have_no_discrepancy_and_no_gradient() -> None:
    features, _, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors()
    features_adv = features.clone().requires_grad_()
    value = ops.discrepancy(features, features_adv, weight, labels)
    (grad,) = torch.autograd.grad(value.sum(), features_adv)
    assert not value.any()
    assert not grad.any()


def test_bounds_the_margin() -> None:
    """Proposition 1 for x' whose prediction is i: S_t + S_i >= f_t(x) - f_i(x)."""
    features, features_adv, weight, labels, _ = MapCase(64, 5, 4, 3, 2).tensors(torch.float64)
    before = torch.nn.functional.linear(features.mean((2, 3)), weight)
    after = torch.nn.functional.linear(features_adv.mean((2, 3)), weight)
    rows = torch.arange(64)
    fooled = after[rows, 1 - labels] >= after[rows, labels]
    assert fooled.any()
    # With two classes p is 1 for the other class, and eq. (8) is eq. (4).
    value = ops.discrepancy(features, features_adv, weight, labels)
    margin = before[rows, labels] - before[rows, 1 - labels]
    assert (value >= margin / 2 - 1e-12)[fooled].all()


def bad_calls():
    features, features_adv, weight, labels, bias = MapCase(3, 5, 4, 3, 4).tensors()
    names = ("features", "features_adv", "weight", "labels")
    good = dict(zip(names, (features, features_adv, weight, labels), strict=True))
    yield r"weight float32 \[4, 3\]", {**good, "weight": weight[:, :3]}
    yield r"features float32 \[5, 4, 3\]", {**good, "features": features[0]}
    yield r"features_adv float32 \[3, 5, 2, 3\]", {**good, "features_adv": features_adv[:, :, :2]}
    yield "features_adv float64", {**good, "features_adv": features_adv.double()}
    yield "weight float64", {**good, "weight": weight.double()}
    yield "weight .* on meta", {**good, "weight": weight.to("meta")}
    yield "int64", {**good, "labels": labels.float()}
    yield r"labels int64 \[2\]", {**good, "labels": labels[:2]}
    yield "labels .* on meta", {**good, "labels": labels.to("meta")}
    yield "0..3", {**good, "labels": labels + 4}
    yield "0..3", {**good, "labels": labels - 4}
    yield r"weight float32 \[1, 5\]", {**good, "weight": weight[:1], "labels": labels * 0}
    yield "reduction", {**good, "reduction": "mean"}
    yield r"bias float32 \[2\]", {**good, "bias": bias[:2]}
    yield "bias float64", {**good, "bias": bias.double()}
    yield "features of type list", {**good, "features": [1.0]}
    yield "features_adv of type list", {**good, "features_adv": [1.0]}
    yield "weight of type float", {**good, "weight": 1.0}
    yield "int64", {**good, "labels": [0, 1, 2]}
    yield "bias of type float", {**good, "bias": 1.0}
    yield "features int32", {**good, "features": features.int()}
    yield r"features float32 \[3, 5, 0, 3\]", {
        **good, "features": features[:, :, :0], "features_adv": features_adv[:, :, :0]
    }  # fmt: skip


@pytest.mark.parametrize("op", [ops.discrepancy, ops.discrepancy_and_gradient])
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(("match", "arguments"), list(bad_calls()))
def test_bad_input_is_one_sentence(op, validate: bool, match: str, arguments: dict) -> None:
    if match == "0..3" and not validate:
        pytest.skip("labels out of range are what `validate` is for")
    with pytest.raises(InputError, match=f"{op.__name__}: .*{match}") as caught:
        op(**arguments, validate=validate)
    assert "\n" not in str(caught.value)


@needs_extension
@pytest.mark.parametrize("op", [ops.discrepancy, ops.discrepancy_and_gradient])
def test_labels_out_of_range_are_refused_on_a_cpu_even_unchecked(op) -> None:
    *_, (_, too_large) = [call for call in bad_calls() if call[0] == "0..3"]
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3"):
        op(**too_large, validate=False)


@pytest.mark.parametrize("op", [ops.discrepancy, ops.discrepancy_and_gradient])
@pytest.mark.parametrize("validate", [True, False])
def test_integer_labels_of_any_width(op, validate: bool) -> None:
    features, features_adv, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors()
    expected = op(features, features_adv, weight, labels)
    for dtype in (torch.int32, torch.uint8):
        found = op(features, features_adv, weight, labels.to(dtype), validate=validate)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    with pytest.raises(InputError, match="int64"):
        op(features, features_adv, weight, labels.bool(), validate=validate)


@needs_extension
def test_the_op_itself_refuses_labels_out_of_range() -> None:
    """Under torch.compile the Python check does not run; the CPU kernel still must not crash."""
    features, features_adv, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors()
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3"):
        torch.ops.fastinterp.discrepancy(
            features, features_adv, weight, labels + 4, None, True, SAVE_NOTHING
        )


@pytest.mark.cuda
def test_unchecked_labels_show_as_nan_on_a_gpu() -> None:
    features, features_adv, weight, labels, _ = MapCase(3, 5, 4, 3, 4).tensors(device="cuda")
    labels[1] = 99
    value = ops.discrepancy(features, features_adv, weight, labels, validate=False)
    assert value.isnan().tolist() == [False, True, False]


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ODD, ids=str)
def test_signs_that_were_kept_give_what_making_them_again_gives(case: MapCase, layout: str) -> None:
    native = torch.ops.fastinterp
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        features, features_adv, weight, labels, bias = case.tensors(dtype, layout=layout)
        features_adv[0] = features[0]  # signs of zero
        grad, results = torch.rand(case.images, dtype=dtype), []
        for save in (SAVE_NOTHING, SAVE_SIGNS):
            value, signs, coefficients = native.discrepancy(
                features, features_adv, weight, labels, bias, True, save
            )
            assert signs.numel() == (save == SAVE_SIGNS) * value.numel() * case.classes * (
                case.height * case.width
            )
            backward = (grad, features, features_adv, weight, coefficients, signs)
            results.append(native.discrepancy_backward(*backward, True, True, True))
        for again, kept in zip(*results, strict=True):
            assert torch.equal(again, kept)
    with pytest.raises(RuntimeError, match="signs must be the forward pass's, or empty"):
        native.discrepancy_backward(*backward[:5], signs[:, :1], True, True, True)


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [7, 8, 14], ids=str)
def test_rows_far_apart_give_the_same_bits(size: int, dtype: torch.dtype) -> None:
    """Maps whose rows lie near each other are multiplied where they are, others through a copy."""
    features, features_adv, weight, labels, _ = MapCase(3, 130, size, size, 6).tensors(dtype)
    room = torch.full((2, 3, 130, 40, size), torch.nan, dtype=dtype)
    apart = room[:, :, :, :size].copy_(torch.stack([features, features_adv]))
    near = ops.discrepancy_and_gradient(features, features_adv, weight, labels)
    far = ops.discrepancy_and_gradient(*apart, weight, labels)
    assert torch.equal(near[0], far[0])
    assert torch.equal(near[1], far[1])
