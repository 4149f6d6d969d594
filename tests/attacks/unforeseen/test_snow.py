from __future__ import annotations

import numpy as np
import pytest
import torch

from fastinterp.attacks.unforeseen import SnowThreat
from fastinterp.attacks.unforeseen.snow import _draw_shapes, _paler

SIZES = [(32, 32), (28, 28), (50, 37)]


def intensities(z: torch.Tensor, height: int, width: int) -> torch.Tensor:
    rows, columns = -(-height // 4), -(-width // 4)
    return z[:, : 7 * rows * columns].view(-1, 7, rows, columns)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_budget(make_images, height: int, width: int) -> None:
    x = make_images(2, 3, height, width)
    threat = SnowThreat(2.0, 0.3)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    shapes = z[:, intensities(z, height, width)[0].numel() :]
    for step in range(5):
        grid = intensities(z, height, width)
        assert grid.min() > 0 and grid.max() <= 1
        means = [
            grid[n, kind, top : top + 8, left : left + 8].mean()
            for n in range(2)
            for kind in range(7)
            for top in range(0, grid.shape[2], 8)
            for left in range(0, grid.shape[3], 8)
        ]
        assert max(means) <= 0.2 + 1e-12
        assert step == 0 or max(means) > 0.19  # climbing wants more than there is
        z = threat.step(x, z, torch.rand_like(z) - 0.2)
    assert torch.equal(z[:, -shapes.shape[1] :], shapes)


def test_what_is_within_the_budget_is_left_alone(make_images) -> None:
    x = make_images(1, 1, 32, 32)
    threat = SnowThreat(2.0, 0.0)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    z[:, : 7 * 64] = 0.01
    z[:, 5] = 1.0
    assert torch.equal(threat.step(x, z, torch.ones_like(z)), z)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_render_against_flakes_painted_one_by_one(make_images, height, width, channels) -> None:
    x = make_images(2, channels, height, width)
    threat = SnowThreat(0.7, 0.3)
    z = threat.init(x, True, torch.Generator().manual_seed(3))
    z[:, 3:11] = 0.8
    grid = intensities(z, height, width)
    shapes = z[:, grid[0].numel() :].view(2, 7, 16, 16).numpy()
    snow = np.zeros((2, 1, height + 32, width + 32))
    for n, kind, row, column in np.ndindex(grid.shape):
        top, left = 16 + 4 * row - 6, 16 + 4 * column - 6
        flake = float(grid[n, kind, row, column]) ** 4 * shapes[n, kind]
        snow[n, 0, top : top + 16, left : left + 16] += flake
    snow = snow[:, :, 16 : 16 + height, 16 : 16 + width]
    expected = np.clip(_paler(x).numpy() + 0.7 * snow, 0, 1)
    assert np.abs(threat.render(x, z).numpy() - expected).max() < 1e-12


def test_shapes() -> None:
    leaning = set()
    for seed in range(12):
        tiles = _draw_shapes(torch.Generator().manual_seed(seed))
        for kind, tile in enumerate(tiles):
            down, right = (0, kind) if kind < 4 else (kind - 3, 0)
            stroke = tile[down : down + 13, right : right + 13]
            assert tile.count_nonzero() == stroke.count_nonzero()  # the rest of the tile is empty
            assert torch.allclose(stroke, stroke.flip(0, 1))  # through the middle
            assert stroke.min() >= 0 and 0.5 < stroke[6, 6] <= 1 + 1e-12
            rows, columns = stroke.nonzero().double().T - 6
            weights = stroke[stroke > 0]
            assert (weights * rows * columns).sum().abs() > 0
            leaning.add((seed, bool((weights * rows * columns).sum() > 0)))
    assert len(leaning) == 12  # the strokes of one image lean to one side ...
    assert len({side for _, side in leaning}) == 2  # ... and not all images to the same


def test_paler() -> None:
    x = torch.tensor([0.0, 0.4, 1.0]).view(1, 3, 1, 1)
    grey = 0.2126 * 0.0 + 0.7152 * 0.4 + 0.0722 * 1.0
    bright = 1.5 * grey + 0.5
    expected = torch.tensor([0.25 * bright, 0.3 + 0.25 * bright, 0.75 + 0.25 * max(1.0, bright)])
    assert torch.allclose(_paler(x).flatten(), expected)
    assert torch.allclose(_paler(x[:, :1]), torch.tensor(0.125))


def test_gradient(make_images) -> None:
    x = 0.4 * make_images(1, 3, 9, 10)
    threat = SnowThreat(0.05, 0.3)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    flakes = (7 * 3 * 3,)
    shapes = z[:, flakes[0] :]
    grid = (0.2 + 0.5 * torch.rand(1, *flakes, dtype=torch.float64)).requires_grad_()
    assert threat.render(x, torch.cat([grid, shapes], 1)).max() < 1
    assert torch.autograd.gradcheck(
        lambda grid: threat.render(x, torch.cat([grid, shapes], 1)), (grid,)
    )
    whole = torch.cat([grid.detach(), shapes], 1).requires_grad_()
    (grad,) = torch.autograd.grad(threat.render(x, whole).sum(), whole)
    assert not grad[:, flakes[0] :].any() and (grad[:, : flakes[0]] > 0).any()
