"""ops.pgd_step against its reference, and the geometry that it promises."""

from __future__ import annotations

import math

import pytest
import torch
from support import DEVICES, DTYPES, assert_as_good_as_torch, block_op, needs_extension
from torch import Tensor

from benchmarks.cases import IMAGE_SHAPES, LAYOUTS, lay_out
from fastinterp import InputError, ops
from fastinterp.ops import reference
from fastinterp.ops.pgd_step import NORMS, project_l1

ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}


def images(shape, dtype=torch.float64, device="cpu", layout="contiguous") -> list[Tensor]:
    """x_adv, grad, x."""
    x = torch.rand(shape, dtype=torch.float64)
    x_adv = (x + 0.2 * torch.randn(shape, dtype=torch.float64)).clamp(0, 1)
    grad = torch.randn(shape, dtype=torch.float64)
    return [lay_out(t.to(device, dtype), layout) for t in (x_adv, grad, x)]


SETTINGS = [(0.01, 0.05), (3.0, 2.0), (0.5, 0.0)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_error_is_at_most_twice_that_of_plain_torch(
    shape: tuple[int, ...], norm: str, layout: str, device: str
) -> None:
    for dtype in DTYPES:
        x_adv, grad, x = images(shape, dtype, device, layout)
        for step_size, eps in SETTINGS:
            ours = ops.pgd_step(x_adv, grad, x, step_size, eps, norm=norm)
            theirs = reference.pgd_step(x_adv, grad, x, step_size, eps, norm=norm)
            truth = reference.pgd_step(
                x_adv.double(), grad.double(), x.double(), step_size, eps, norm=norm
            )
            assert_as_good_as_torch(ours, theirs, truth, f"{dtype} {step_size} {eps}")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", NORMS)
def test_stays_in_the_ball_and_in_range(norm: str, device: str) -> None:
    x_adv, grad, x = images((6, 3, 9, 9), device=device)
    for step_size, eps in SETTINGS:
        out = ops.pgd_step(x_adv, grad, x, step_size, eps, 0.1, 0.9, norm=norm)
        size = torch.linalg.vector_norm((out - x.clamp(0.1, 0.9)).flatten(1), ORDERS[norm], dim=1)
        assert (size <= eps + 1e-12).all()
        assert out.min() >= 0.1
        assert out.max() <= 0.9


def test_l1_projection_is_the_nearest_point() -> None:
    """The optimality condition: what was taken off is the same wherever something is left."""
    delta = torch.randn(5, 200, dtype=torch.float64)
    eps = torch.full((5, 1), 7.0, dtype=torch.float64)
    out = project_l1(delta, eps)
    torch.testing.assert_close(out.abs().sum(1, keepdim=True), eps)
    taken = delta.abs() - out.abs()
    for row in range(5):
        left = out[row] != 0
        threshold = taken[row][left]
        torch.testing.assert_close(threshold, threshold[:1].expand_as(threshold))
        assert (delta[row][~left].abs() <= threshold[0] + 1e-12).all()


def test_native_l1_projection_finds_ties_and_single_entries() -> None:
    x = torch.zeros(3, 8, dtype=torch.float64)
    x_adv = torch.stack([torch.ones(8), torch.eye(8)[2] * 5, torch.zeros(8)]).double()
    out = ops.pgd_step(x_adv, torch.zeros_like(x), x, 0.0, 2.0, -9.0, 9.0, norm="l1")
    expected = torch.stack([torch.full((8,), 0.25), torch.eye(8)[2] * 2, torch.zeros(8)]).double()
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", NORMS)
def test_each_image_has_its_own_eps_and_step_size(norm: str, device: str) -> None:
    x_adv, grad, x = images((4, 1, 6, 5), device=device)
    step_size = torch.tensor([0.1, 0.2, 0.0, 1.0], dtype=torch.float64, device=device)
    eps = torch.tensor([0.3, 0.0, 0.2, 2.0], dtype=torch.float64, device=device)
    together = ops.pgd_step(x_adv, grad, x, step_size, eps, norm=norm)
    alone = [
        ops.pgd_step(x_adv[i : i + 1], grad[i : i + 1], x[i : i + 1], float(s), float(e), norm=norm)
        for i, (s, e) in enumerate(zip(step_size, eps, strict=True))
    ]
    assert torch.equal(together, torch.cat(alone))
    torch.testing.assert_close(
        together, reference.pgd_step(x_adv, grad, x, step_size, eps, norm=norm)
    )
    one = torch.tensor(0.1, dtype=torch.float64, device=device)
    assert torch.equal(
        ops.pgd_step(x_adv, grad, x, one, one, norm=norm),
        ops.pgd_step(x_adv, grad, x, 0.1, 0.1, norm=norm),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", NORMS)
def test_inplace(norm: str, dtype: torch.dtype, layout: str, device: str) -> None:
    x_adv, grad, x = images((4, 3, 6, 5), dtype, device, layout)
    expected = ops.pgd_step(x_adv, grad, x, 0.1, 0.2, norm=norm)
    assert ops.pgd_step(x_adv, grad, x, 0.1, 0.2, norm=norm, inplace=True) is x_adv
    assert torch.equal(x_adv, expected)


@pytest.mark.parametrize("shape", [(4, 1, 6, 5), (1, 3, 6, 5), (4, 3, 1, 5), (4, 3, 6, 1)], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("device", DEVICES)
def test_tensors_may_lie_in_memory_each_its_own_way(
    norm: str, shape: tuple[int, ...], device: str
) -> None:
    x_adv, grad, x = images(shape, device=device)
    turned = torch.empty_like(grad, memory_format=torch.channels_last).copy_(grad)
    assert turned.stride() != grad.stride()
    expected = ops.pgd_step(x_adv, grad, x, 0.1, 0.15, norm=norm)
    assert torch.equal(ops.pgd_step(x_adv, turned, x, 0.1, 0.15, norm=norm), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradient_moves_nothing(norm: str, device: str) -> None:
    _, grad, x = images((3, 1, 5, 5), device=device)
    out = ops.pgd_step(x, torch.zeros_like(grad), x, 0.1, 0.2, norm=norm)
    torch.testing.assert_close(out, x, rtol=0, atol=0)


def test_sign_of_zero_and_of_nan_is_zero() -> None:
    x = torch.full((1, 4), 0.5)
    grad = torch.tensor([[0.0, -0.0, float("nan"), 1.0]])
    out = ops.pgd_step(x, grad, x, 0.25, 0.5)
    assert out.tolist() == [[0.5, 0.5, 0.5, 0.75]]
    assert torch.equal(out, reference.pgd_step(x, grad, x, 0.25, 0.5))


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(device: str) -> None:
    x = torch.zeros(0, 1, 5, 5, device=device)
    for norm in NORMS:
        assert ops.pgd_step(x, x, x, 0.1, 0.1, norm=norm).shape == x.shape


@needs_extension
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    for layout in LAYOUTS:
        x_adv, grad, x = images((3, 2, 4, 5), torch.float32, device, layout)
        for norm in range(3):
            settings = (0.1, 0.2, None, None, 0.0, 1.0, norm)
            torch.library.opcheck(
                torch.ops.fastinterp.pgd_step.default, (x_adv, grad, x, *settings)
            )
            torch.library.opcheck(
                torch.ops.fastinterp.pgd_step_.default, (x_adv.clone(), grad, x, *settings)
            )


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_as_one_graph(device: str) -> None:
    x_adv, grad, x = images((3, 2, 4, 5), torch.float32, device)

    def function(x_adv: Tensor) -> Tensor:
        return ops.pgd_step(ops.pgd_step(x_adv, grad, x, 0.1, 0.2), grad, x, 0.1, 0.2, norm="l2")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x_adv), function(x_adv))


def bad_calls():
    x_adv, grad, x = images((3, 1, 4, 4), torch.float32)
    nan = float("nan")
    yield "eps", (x_adv, grad, x, 0.1, nan), {}
    yield "eps", (x_adv, grad, x, 0.1, -1.0), {}
    yield "eps", (x_adv, grad, x, 0.1, True), {}
    yield "step_size", (x_adv, grad, x, "0.1", 0.1), {}
    yield "step_size", (x_adv, grad, x, float("inf"), 0.1), {}
    yield "eps", (x_adv, grad, x, 0.1, torch.tensor([0.1, nan, 0.1])), {}
    yield r"eps float32 \[2\]", (x_adv, grad, x, 0.1, torch.ones(2)), {}
    yield "eps float64", (x_adv, grad, x, 0.1, torch.ones(3).double()), {}
    yield r"grad float32 \[2, 1, 4, 4\]", (x_adv, grad[:2], x, 0.1, 0.1), {}
    yield "x float64", (x_adv, grad, x.double(), 0.1, 0.1), {}
    yield "x .* on meta", (x_adv, grad, x.to("meta"), 0.1, 0.1), {}
    yield "grad of type list", (x_adv, [1.0], x, 0.1, 0.1), {}
    yield "x_adv int32", (x_adv.int(), grad, x, 0.1, 0.1), {}
    yield "norm must be", (x_adv, grad, x, 0.1, 0.1), {"norm": "l3"}
    yield "lower", (x_adv, grad, x, 0.1, 0.1), {"lower": 1.0, "upper": 0.0}
    yield r"x float32 \[\]", (x_adv.sum(), grad.sum(), x.sum(), 0.1, 0.1), {}


@pytest.mark.parametrize(("match", "arguments", "options"), list(bad_calls()))
def test_bad_input_is_one_sentence(match: str, arguments: tuple, options: dict) -> None:
    with pytest.raises(InputError, match=match) as caught:
        ops.pgd_step(*arguments, **options)
    assert "\n" not in str(caught.value)


@needs_extension
def test_the_op_itself_refuses_nan_eps() -> None:
    x_adv, grad, x = images((3, 1, 4, 4), torch.float32)
    with pytest.raises(ValueError, match="eps"):
        torch.ops.fastinterp.pgd_step(x_adv, grad, x, 0.1, float("nan"), None, None, 0.0, 1.0, 0)


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
def test_unchecked_eps_shows_as_nan_on_a_gpu(norm: str) -> None:
    x_adv, grad, x = images((2, 1, 4, 4), torch.float32, "cuda")
    eps = torch.tensor([0.1, float("nan")], device="cuda")
    out = ops.pgd_step(x_adv, grad, x, 0.1, eps, norm=norm, validate=False)
    assert out[1].isnan().all()
    assert not out[0].isnan().any()


@needs_extension
@pytest.mark.parametrize("inplace", [False, True])
def test_subclasses_of_tensor_see_the_op_and_get_their_own_kind(inplace: bool) -> None:
    seen: list[str] = []

    class Watched(Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    x_adv, grad, x = images((3, 1, 5, 7))
    plain = ops.pgd_step(x_adv, grad, x, 0.01, 0.05)
    found = ops.pgd_step(x_adv.as_subclass(Watched), grad, x, 0.01, 0.05, inplace=inplace)
    assert isinstance(found, Watched)
    assert torch.equal(found.as_subclass(Tensor), plain)
    assert any("fastinterp.pgd_step" in name for name in seen)


EXTREMES = [1e-45, 1e-41, 1e-30, 1e-24, 1e-15, 1e15, 1e30, 3e37]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("scale", EXTREMES)
def test_steps_along_tiny_and_huge_gradients(norm: str, scale: float, device: str) -> None:
    """The square of such a number, or one over it, leaves the range of float32."""
    x = torch.full((2, 40), 0.5, device=device)
    grad = torch.randn(2, 40, device=device).mul(scale)
    grad[:, ::5] = 0
    for dtype in (torch.float32, torch.float64):
        ours = ops.pgd_step(x.to(dtype), grad.to(dtype), x.to(dtype), 0.1, 0.1, norm=norm)
        truth = reference.pgd_step(x.double(), grad.double(), x.double(), 0.1, 0.1, norm=norm)
        moved = (truth - 0.5).norm(dim=1)
        assert (moved > 0).all()
        assert ((ours.double() - truth).norm(dim=1) <= 1e-6 * moved + 1e-7).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_gradient_that_is_not_finite_moves_nothing(norm: str, bad: float, device: str) -> None:
    x = torch.rand(2, 1, 5, 5, device=device)
    grad = torch.randn_like(x)
    grad[0, 0, 2, 2] = bad
    for step in (ops.pgd_step, reference.pgd_step):
        moved = step(x, grad, x, 0.1, 0.1, norm=norm)
        assert torch.equal(moved[0], x[0])
        assert not torch.equal(moved[1], x[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_step_in_place_may_share_its_memory(norm: str, device: str) -> None:
    x, grad = torch.rand(3, 30, device=device), torch.randn(3, 30, device=device)
    expected = ops.pgd_step(x, grad, x, 0.3, 0.1, norm=norm)
    both = x.clone()
    assert torch.equal(ops.pgd_step(both, grad, both, 0.3, 0.1, norm=norm, inplace=True), expected)
    # x_adv and x overlap by all but a row.
    rows = torch.rand(4, 30, device=device)
    expected = ops.pgd_step(rows[1:].clone(), grad, rows[:-1].clone(), 0.3, 0.1, norm=norm)
    ops.pgd_step(rows[1:], grad, rows[:-1], 0.3, 0.1, norm=norm, inplace=True)
    assert torch.equal(rows[1:], expected)


@needs_extension
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scale", EXTREMES)
def test_the_program_of_a_gpu_takes_them_too(order: int, scale: float) -> None:
    x, norm = torch.full((2, 40), 0.5), NORMS[order]
    grad = torch.randn(2, 40) * scale
    ours = block_op("pgd_step")(x, grad, x, 0.1, 0.1, None, None, 0.0, 1.0, order)
    truth = reference.pgd_step(x.double(), grad.double(), x.double(), 0.1, 0.1, norm=norm)
    assert ((ours - truth).norm(dim=1) <= 1e-6).all()
    grad[0, 3] = float("nan")
    ours = block_op("pgd_step")(x, grad, x, 0.1, 0.1, None, None, 0.0, 1.0, order)
    assert torch.equal(ours[0], x[0]) and not torch.equal(ours[1], x[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_pixel_that_is_no_number_stays_one(norm: str, device: str) -> None:
    x = torch.rand(2, 33, device=device)
    x_adv, grad = x.clone(), torch.randn_like(x)
    x[0, 3] = float("nan")
    ours = ops.pgd_step(x_adv, grad, x, 0.1, 0.1, norm=norm)
    expected = reference.pgd_step(x_adv, grad, x, 0.1, 0.1, norm=norm)
    assert torch.equal(ours.isnan()[0], expected.isnan()[0]) and ours[0].isnan().any()
    assert not ours[1].isnan().any()
