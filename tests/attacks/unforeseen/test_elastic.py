from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from fastinterp.attacks import LinfBall
from fastinterp.attacks.unforeseen import ElasticThreat
from fastinterp.attacks.unforeseen.elastic import _smooth


def flow_threat(eps: float = 1.5, step_size: float = 0.4) -> ElasticThreat:
    return ElasticThreat(LinfBall(eps, step_size, -math.inf, math.inf))


@pytest.mark.parametrize(("across", "down"), [(1, 0), (0, -2), (3, 1)])
def test_a_constant_flow_shifts_the_image(make_images, across: int, down: int) -> None:
    x = make_images(2, 3, 9, 12)
    flow = torch.tensor([across, down]).double().view(1, 2, 1, 1).expand(2, 2, 9, 12)
    rows = (torch.arange(9) + down).clamp(0, 8)
    columns = (torch.arange(12) + across).clamp(0, 11)
    assert torch.allclose(flow_threat().render(x, flow), x[:, :, rows][..., columns])


@pytest.mark.parametrize("shape", [(16, 16), (28, 28), (90, 70)])
def test_render_against_scipy(make_images, shape) -> None:
    x = make_images(1, 2, *shape)
    threat = flow_threat(4.0)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    std = 3 / 224 * min(shape)
    radius = math.ceil(4 * std)
    # scipy's "mirror" is the mode that does not repeat the border.
    across, down = (
        gaussian_filter(part.numpy(), std, mode="mirror", radius=radius) for part in z[0]
    )
    rows, columns = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    points = [rows.numpy() + down, columns.numpy() + across]
    warped = threat.render(x, z)[0]
    for plane, found in zip(x[0].numpy(), warped.numpy(), strict=True):
        expected = map_coordinates(plane, points, order=1, mode="nearest")
        assert abs(found - expected).max() < 1e-9


def test_the_flow_stays_within_eps_before_and_after_smoothing(make_images) -> None:
    x = make_images(2, 1, 28, 28)
    threat = flow_threat(1.5, 0.8)
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    for _ in range(5):
        assert z.abs().max() <= 1.5 and _smooth(z).abs().max() <= 1.5 + 1e-12
        z = threat.step(x, z, torch.randn_like(z))
    assert z.abs().max() == 1.5


def test_no_pixel_value_is_new(make_images) -> None:
    x = make_images(2, 1, 28, 28)
    threat = flow_threat(8.0)
    x_adv = threat.render(x, threat.init(x, True, torch.Generator().manual_seed(0)))
    assert x_adv.min() >= x.min() - 1e-12 and x_adv.max() <= x.max() + 1e-12
    assert not torch.allclose(x_adv, x)
    flat = torch.full_like(x, 0.3)
    assert torch.allclose(threat.render(flat, threat.init(flat, True, None)), flat)


def test_start_without_noise_is_the_image(make_images) -> None:
    x = make_images(2, 3, 10, 7)
    threat = flow_threat()
    assert torch.allclose(threat.render(x, threat.init(x, False, None)), x)


def test_gradient(make_images) -> None:
    x = make_images(1, 2, 5, 6, middle=True)
    threat = flow_threat(0.4)
    z = threat.init(x, True, torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: threat.render(x, z), (z,))
