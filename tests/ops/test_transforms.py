"""Ops under torch.func and forward-mode derivatives: as the reference, or one clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from benchmarks.cases import MapCase
from fastinterp import InputError, ops
from fastinterp.ops import reference

Function = Callable[[Tensor], Tensor]
FEATURES, ADV, WEIGHT, LABELS, BIAS = MapCase(2, 3, 2, 2, 4).tensors(torch.float64)
OTHERS = torch.rand(2, 3, 2, 2, dtype=torch.float64)


def direction(x: Tensor) -> Tensor:
    return torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x)


def dual(function: Function, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = function(forward_ad.make_dual(x, direction(x)))
        value, tangent = forward_ad.unpack_dual(out)
        return torch.zeros_like(value) if tangent is None else tangent


DERIVATIVES: dict[str, Callable[[Function, Tensor], Any]] = {
    "dual": dual,
    "jvp": lambda f, x: jvp(f, (x,), (direction(x),))[1],
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones_like(f(x)))[0],
    "grad": lambda f, x: grad(lambda z: f(z).square().sum())(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(lambda z: f(z).square().sum())(x),
    "vmap of jvp": lambda f, x: vmap(lambda z: jvp(f, (z,), (direction(x),))[1])(
        torch.stack([x, 2 * x])
    ),
}
DIFFERENTIABLE: dict[str, tuple[Tensor, Callable[[ModuleType], Function]]] = {
    "cam": (FEATURES, lambda m: lambda z: m.cam(z, WEIGHT)),
    "cam by the weight": (WEIGHT, lambda m: lambda z: m.cam(FEATURES, z)),
    "discrepancy": (ADV, lambda m: lambda z: m.discrepancy(FEATURES, z, WEIGHT, LABELS)),
    "discrepancy by the clean features": (
        FEATURES,
        lambda m: lambda z: m.discrepancy(z, ADV, WEIGHT, LABELS, bias=BIAS, reduction="1-class"),
    ),
    "discrepancy by the weight": (
        WEIGHT,
        lambda m: lambda z: m.discrepancy(FEATURES, ADV, z, LABELS, bias=BIAS),
    ),
    "discrepancy by the bias": (
        BIAS,
        lambda m: lambda z: m.discrepancy(FEATURES, ADV, WEIGHT, LABELS, bias=z),
    ),
}
CONSTANT: dict[str, tuple[Tensor, Callable[[ModuleType], Function]]] = {
    "pgd_step": (ADV, lambda m: lambda z: m.pgd_step(z, OTHERS, FEATURES, 0.1, 0.2, norm="l2")),
    "kendall_tau": (ADV, lambda m: lambda z: m.kendall_tau(z.flatten(1), OTHERS.flatten(1))),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_derivatives_are_those_of_the_reference(derivative: str, name: str) -> None:
    x, function = DIFFERENTIABLE[name]
    found, expected = (DERIVATIVES[derivative](function(m), x) for m in (ops, reference))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert bool(expected.any())


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_ops_without_a_derivative_are_constants(derivative: str, name: str) -> None:
    x, function = CONSTANT[name]
    found = DERIVATIVES[derivative](lambda z: function(ops)(z), x)
    assert not bool(found.any())


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *CONSTANT])
def test_vmap_gives_what_a_loop_gives(name: str) -> None:
    x, function = (DIFFERENTIABLE | CONSTANT)[name]
    stacked = torch.stack([x, 2 * x, x - 1])
    found = vmap(function(ops))(stacked)
    torch.testing.assert_close(found, torch.stack([function(reference)(one) for one in stacked]))


def test_discrepancy_and_gradient_under_vmap_and_jvp() -> None:
    def both(z: Tensor) -> tuple[Tensor, Tensor]:
        return ops.discrepancy_and_gradient(FEATURES, z, WEIGHT, LABELS, bias=BIAS)

    stacked = torch.stack([ADV, 2 * ADV])
    for found, expected in zip(
        vmap(both)(stacked), zip(*map(both, stacked), strict=True), strict=True
    ):
        torch.testing.assert_close(found, torch.stack(expected))
    (value, gradient), _ = jvp(both, (ADV,), (ADV,))
    torch.testing.assert_close((value, gradient), both(ADV))
    with forward_ad.dual_level():
        torch.testing.assert_close(both(forward_ad.make_dual(ADV, ADV)), both(ADV))


def test_a_step_in_place_under_vmap() -> None:
    stacked = torch.stack([ADV, 2 * ADV])
    expected = torch.stack([ops.pgd_step(z, OTHERS, FEATURES, 0.1, 0.2) for z in stacked])
    found = vmap(lambda z: ops.pgd_step(z, OTHERS, FEATURES, 0.1, 0.2, inplace=True))(stacked)
    assert torch.equal(found, expected) and torch.equal(stacked, expected)


def test_values_that_vmap_hides_are_checked_no_further() -> None:
    """What vmap maps over has no values that Python could look at."""
    labels, sizes = torch.stack([LABELS, 1 - LABELS % 2]), OTHERS[:, :, 0, 0].mT.clone()

    def discrepancy(labels: Tensor, validate: bool) -> Tensor:
        return ops.discrepancy(FEATURES, ADV, WEIGHT, labels, validate=validate)

    def step(size: Tensor, validate: bool) -> Tensor:
        return ops.pgd_step(ADV, OTHERS, FEATURES, size, 0.2, validate=validate)

    for function, mapped in ((discrepancy, labels), (step, sizes)):
        expected = torch.stack([function(one, True) for one in mapped])
        torch.testing.assert_close(vmap(lambda z, f=function: f(z, False))(mapped), expected)
        with pytest.raises(InputError, match="validate=False") as caught:
            vmap(lambda z, f=function: f(z, True))(mapped)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cam", "discrepancy"])
def test_transforms_compile(name: str) -> None:
    x, function = DIFFERENTIABLE[name]

    def derivative(z: Tensor) -> Tensor:
        return jvp(function(ops), (z,), (direction(z),))[1]

    compiled = torch.compile(derivative, backend="aot_eager")
    torch.testing.assert_close(compiled(x), derivative(x))
