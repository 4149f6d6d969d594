"""Shortest steps to a hyperplane inside a box, against scipy's solvers in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastinterp.attacks.hyperplane import length, step_to_hyperplane

optimize = pytest.importorskip("scipy.optimize")


def problem(m: int = 12, d: int = 7, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Points of [0, 1]^d, some at its faces, normals with zeros, gains of either sign."""
    point = torch.rand((m, d), dtype=dtype)
    point[: m // 3] = point[: m // 3].round()
    normal = torch.randn((m, d), dtype=dtype)
    normal[::3, :2] = 0
    room = torch.where(normal > 0, 1 - point, point)
    gain = (normal.abs() * room).sum(1) * torch.rand(m, dtype=dtype)
    other = (normal.abs() * torch.where(normal > 0, point, 1 - point)).sum(1)
    down = torch.rand(m) < 0.5
    return [point, normal, torch.where(down, -other * torch.rand(m, dtype=dtype), gain)]


def least_length(point: np.ndarray, normal: np.ndarray, gain: float, norm: str) -> float:
    d = len(point)
    bounds = list(zip(-point, 1 - point, strict=True))
    if norm == "l2":
        found = optimize.minimize(
            lambda step: step @ step,
            np.zeros(d),
            jac=lambda step: 2 * step,
            bounds=bounds,
            constraints={"type": "eq", "fun": lambda step: normal @ step - gain},
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 500},
        )
        return math.sqrt(found.fun)
    # With t >= |step|: t is one number for linf, d numbers for l1.
    extra = 1 if norm == "linf" else d
    more = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    found = optimize.linprog(
        np.r_[np.zeros(d), np.ones(extra)],
        A_ub=np.block([[np.eye(d), -more], [-np.eye(d), -more]]),
        b_ub=np.zeros(2 * d),
        A_eq=np.r_[normal, np.zeros(extra)][None],
        b_eq=[gain],
        bounds=bounds + [(0, None)] * extra,
    )
    return float(found.fun)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_shorter_step_exists(norm) -> None:
    point, normal, gain = problem()
    step = step_to_hyperplane(point, normal, gain, norm, 0.0, 1.0)
    assert ((point + step >= -1e-15) & (point + step <= 1 + 1e-15)).all()
    assert torch.allclose((normal * step).sum(1), gain, rtol=1e-12, atol=1e-13)
    least = [
        least_length(p.numpy(), n.numpy(), float(g), norm)
        for p, n, g in zip(point, normal, gain, strict=True)
    ]
    assert torch.allclose(
        length(step, norm), torch.tensor(least, dtype=step.dtype), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_out_of_reach_ends_in_the_corner(norm) -> None:
    point, normal, _ = problem()
    for sign in (1, -1):
        gain = sign * torch.full((12,), 1e3, dtype=torch.float64)
        step = step_to_hyperplane(point, normal, gain, norm, 0.0, 1.0)
        corner = torch.where(normal * sign > 0, 1 - point, -point)
        assert torch.equal(step, torch.where(normal == 0, 0, corner))
    nothing = torch.zeros_like(normal)
    step = step_to_hyperplane(point, nothing, torch.ones(12).double(), norm, 0.0, 1.0)
    assert torch.equal(step, nothing)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_float32_keeps_its_digits(norm) -> None:
    point, normal, gain = problem(50, 784)
    step = step_to_hyperplane(point, normal, gain, norm, 0.0, 1.0)
    single = step_to_hyperplane(*(t.float() for t in (point, normal, gain)), norm, 0.0, 1.0)
    assert torch.allclose(length(single, norm).double(), length(step, norm), rtol=2e-5)
    reached = (normal * single.double()).sum(1)
    assert torch.allclose(reached, gain, rtol=1e-4, atol=1e-4)
