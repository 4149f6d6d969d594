from __future__ import annotations

import numpy as np
import pytest
import torch

from fastinterp.attacks.unforeseen import FogThreat
from fastinterp.attacks.unforeseen.fog import _diamond_square


def diamond_square(z: np.ndarray, side: int) -> np.ndarray:
    """Point by point on a torus, as the algorithm is described (Fournier et al., 1982)."""
    field, used, amplitude, step = np.zeros((side, side)), 0, 1.0, side

    def at(row: int, column: int) -> float:
        return field[row % side, column % side]

    while step > 1:
        half, count = step // 2, (side // step) ** 2
        middle, over, left = z[used : used + 3 * count].reshape(3, side // step, side // step)
        cells = list(np.ndindex(side // step, side // step))
        for i, j in cells:
            r, c = i * step, j * step
            mean = (at(r, c) + at(r + step, c) + at(r, c + step) + at(r + step, c + step)) / 4
            field[r + half, c + half] = mean + amplitude * (2 * middle[i, j] - 1)
        for numbers, down, right in ((over, 0, half), (left, half, 0)):
            for i, j in cells:
                r, c = i * step + down, j * step + right
                mean = (at(r - half, c) + at(r + half, c) + at(r, c - half) + at(r, c + half)) / 4
                field[r, c] = mean + amplitude * (2 * numbers[i, j] - 1)
        used, amplitude, step = used + 3 * count, amplitude / 2, half
    return field


@pytest.mark.parametrize("side", [1, 2, 16])
def test_diamond_square_against_a_loop(side: int) -> None:
    z = torch.rand(2, side**2 - 1, dtype=torch.float64)
    expected = np.stack([diamond_square(row, side) for row in z.numpy()])
    assert np.abs(_diamond_square(z, side).numpy() - expected).max() < 1e-12


@pytest.mark.parametrize(("shape", "side"), [((3, 32, 32), 64), ((1, 28, 28), 32), ((3, 5, 9), 16)])
def test_render(make_images, shape, side: int) -> None:
    x = make_images(2, *shape)
    threat = FogThreat(100.0, 1.0)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    assert z.shape == (2, side**2 - 1) and z.min() >= 0 and z.max() <= 1
    for image, row, found in zip(x.numpy(), z.numpy(), threat.render(x, z).numpy(), strict=True):
        fog = diamond_square(row, side)
        fog = (fog - fog.min()) / (fog.max() - fog.min())
        top, left = (side - shape[1]) // 2, (side - shape[2]) // 2
        fog = fog[top : top + shape[1], left : left + shape[2]]
        for channel, seen in zip(image, found, strict=True):
            expected = (channel + fog * 100 / 255) / (channel.max() + 100 / 255)
            assert np.abs(seen - expected).max() < 1e-12


def test_steps_are_signs_and_stay_between_0_and_1(make_images) -> None:
    x = make_images(2, 3, 6, 6)
    threat = FogThreat(100.0, 0.3)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    grad = torch.randn_like(z)
    moved = threat.step(x, z, grad)
    assert torch.allclose(moved, (z + 0.3 * grad.sign()).clamp(0, 1))
    assert moved.min() == 0 and moved.max() == 1


def test_gradient(make_images) -> None:
    x = make_images(1, 3, 3, 2)
    threat = FogThreat(100.0, 0.3)
    z = threat.init(x, True, torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: threat.render(x, z), (z,))
