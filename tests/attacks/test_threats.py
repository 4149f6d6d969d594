from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from fastinterp import InputError
from fastinterp.attacks import L1Ball, L2Ball, LinfBall

ORDER = {LinfBall: math.inf, L2Ball: 2, L1Ball: 1}
BALLS = list(ORDER)


def norms(ball: type, delta: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[ball], dim=1)


@pytest.mark.parametrize("ball", BALLS)
def test_random_start_is_uniform_in_the_ball(ball: type) -> None:
    eps, d = 0.25, 3
    x = torch.full((20000, d), 0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    delta = (ball(eps, 0.01).init(x, True, generator) - x) / eps
    # Of a uniform ball: the share inside radius r is r^d, by whichever norm the ball has.
    assert kstest((norms(ball, delta) ** d).numpy(), "uniform").pvalue > 0.01
    # And one coordinate's second moment, known in closed form.
    second = {LinfBall: 1 / 3, L2Ball: 1 / (d + 2), L1Ball: 2 / ((d + 1) * (d + 2))}[ball]
    measured = delta.square().mean(dim=0)
    assert torch.allclose(measured, torch.full_like(measured, second), rtol=0.05)
    assert delta.mean(dim=0).abs().max() < 0.02


@pytest.mark.parametrize("ball", BALLS)
def test_start_and_steps_stay_in_the_ball_and_the_range(ball: type) -> None:
    x = torch.rand(16, 1, 5, 5, dtype=torch.float64)
    eps = torch.linspace(0, 2, 16, dtype=torch.float64)
    threat = ball(eps, 0.5)
    z = threat.init(x, True, None)
    for _ in range(3):
        z = threat.step(x, z, torch.randn_like(x))
        assert (norms(ball, z - x) <= eps * (1 + 1e-12) + 1e-12).all()
        assert z.min() >= 0 and z.max() <= 1
    assert torch.equal(z[0], x[0])
    assert torch.equal(threat.render(x, z), z)


@pytest.mark.parametrize("ball", BALLS)
def test_generator_decides_the_start(ball: type) -> None:
    x = torch.rand(3, 1, 5, 5)
    threat = ball(0.1, 0.01)
    first, second = (threat.init(x, True, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, threat.init(x, True, torch.Generator().manual_seed(8)))


def test_start_without_noise_is_a_copy() -> None:
    x = torch.rand(2, 3)
    z = LinfBall(0.1, 0.01).init(x, False, None)
    assert torch.equal(z, x)
    assert z.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("ball", BALLS)
def test_half_precision_starts(ball: type) -> None:
    x = torch.rand(4, 1, 5, 5).bfloat16()
    z = ball(0.5, 0.01).init(x, True, torch.Generator().manual_seed(0))
    assert z.dtype == torch.bfloat16
    assert not torch.equal(z, x)


def test_rows_picks_each_images_radius() -> None:
    threat = LinfBall(torch.tensor([0.1, 0.2, 0.3]), 0.05).rows(torch.tensor([2, 0]))
    x = torch.full((2, 1), 0.5)
    z = threat.step(x, x.clone(), torch.ones(2, 1))
    assert torch.allclose(z, x + 0.05)
    for _ in range(10):
        z = threat.step(x, z, torch.ones(2, 1))
    assert torch.allclose(z, x + torch.tensor([[0.3], [0.1]]))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.3", True, torch.tensor([0.1, -1.0])])
def test_bad_radius_is_refused(bad: object) -> None:
    with pytest.raises(InputError, match="eps must"):
        LinfBall(bad, 0.01)
    with pytest.raises(InputError, match="step_size must"):
        LinfBall(0.1, bad)


def test_empty_range_is_refused() -> None:
    with pytest.raises(InputError, match="lower must be below upper"):
        LinfBall(0.1, 0.01, lower=1.0, upper=1.0)
