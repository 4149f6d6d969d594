from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastinterp.attacks.unforeseen import GaborThreat
from fastinterp.attacks.unforeseen.gabor import KERNEL, _draw_kernel, _normalised


@pytest.fixture
def started(make_images):
    x = make_images(3, 3, 20, 14)
    threat = GaborThreat(40.0, 0.4)
    return threat, x, threat.init(x, True, torch.Generator().manual_seed(1))


def parts(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return z[:, :280], z[:, 280:560], z[:, 560:]


def test_one_pixel_in_fourteen_may_bear_a_kernel(started) -> None:
    _, _, z = started
    field, sites, kernels = parts(z)
    assert kernels.shape == (3, KERNEL**2)
    assert (sites.sum(1) == 20).all() and set(sites.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(sites[0], sites[1]) and not torch.equal(kernels[0], kernels[1])
    assert (field[sites == 0] == 0).all()
    assert field.abs().max() <= 1 and field.min() < -0.3 and field.max() > 0.3


def test_only_strengths_at_the_sites_move(started) -> None:
    threat, x, z = started
    field, sites, kernels = parts(z)
    for _ in range(6):
        z = threat.step(x, z, torch.randn_like(z))
        assert torch.equal(parts(z)[1], sites) and torch.equal(parts(z)[2], kernels)
        assert (parts(z)[0][sites == 0] == 0).all() and parts(z)[0].abs().max() <= 1
    assert not torch.equal(parts(z)[0], field)


def test_a_kernel_is_even_and_largest_in_the_middle() -> None:
    for seed in range(20):
        kernel = _draw_kernel(torch.Generator().manual_seed(seed))
        assert torch.allclose(kernel, kernel.flip(0, 1))  # cosines: turned half round, the same
        directions = kernel[KERNEL // 2, KERNEL // 2]
        assert kernel.abs().max() == directions
        assert directions == pytest.approx(round(float(directions))) and 1 <= directions < 10.5
        # At the middle of a side the envelope is exp(-1/8 / width^2) with width 0.1 to 0.4.
        side = float(kernel[0, KERNEL // 2].abs() / directions)
        assert side <= np.exp(-0.125 / 0.401**2) + 1e-9


def test_one_site_shows_the_kernel(make_images) -> None:
    """The field is convolved, centred, and one strength is one kernel."""
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    threat = GaborThreat(255.0, 1.0)
    z = threat.init(x, True, torch.Generator().manual_seed(2))
    z[:, : 31 * 31] = 0
    z[0, 15 * 31 + 15] = 0.5
    kernel = z[0, -(KERNEL**2) :].view(KERNEL, KERNEL)
    noise = F.pad(0.5 * kernel, (4, 4, 4, 4))[None, None]
    assert torch.allclose(threat.render(x, z), _normalised(noise))


def test_normalisation_is_the_published_one_without_its_fourier_transforms() -> None:
    noise = torch.randn(2, 1, 9, 12, dtype=torch.float64)
    for image, found in zip(noise[:, 0].numpy(), _normalised(noise)[:, 0].numpy(), strict=True):
        centred = image - image.mean()
        size = np.sqrt(np.abs(np.fft.irfft2(np.fft.rfft2(centred**2), image.shape)))
        flat = image.mean() + centred * 1.001 / (0.001 + size / size.max())
        expected = (flat - flat.min()) / (flat.max() - flat.min())
        assert np.abs(found - expected).max() < 1e-9


def test_noise_fills_its_range_in_every_channel_alike(started) -> None:
    threat, x, z = started
    x = torch.full_like(x, 0.1)
    added = (threat.render(x, z) - x) * 255 / 40
    assert torch.allclose(added, added[:, :1].expand_as(added))
    assert torch.allclose(added.amax((1, 2, 3)), torch.ones(3).double())
    assert added.amin((1, 2, 3)).abs().max() < 1e-12
    # Nearly all of it lies near the ends: the contrast is alike everywhere.
    assert ((added - 0.5).abs() > 0.3).double().mean() > 0.9


def test_a_field_of_zeros_is_not_divided_by() -> None:
    assert _normalised(torch.zeros(1, 1, 4, 4)).isfinite().all()


def test_gradient_with_the_normalisers_held(started) -> None:
    """Mean, gain and range are constants to the gradient; what remains is linear."""
    threat, _, z = started
    x = torch.full((3, 1, 20, 14), 0.4, dtype=torch.float64)
    weight = torch.randn_like(x)
    z = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad((threat.render(x, z) * weight).sum(), z)
    field, _, kernels = parts(z.detach())

    def convolved(field: torch.Tensor) -> torch.Tensor:
        pairs = zip(field.view(3, 1, 1, 20, 14), kernels.view(3, 1, 1, KERNEL, KERNEL), strict=True)
        return torch.cat([F.conv2d(f, k, padding=KERNEL // 2) for f, k in pairs])

    noise = convolved(field)
    mean = noise.mean((1, 2, 3), keepdim=True)
    size = (noise - mean).abs()
    gain = 1.001 / (0.001 + size / size.amax((1, 2, 3), keepdim=True))
    flat = (noise - mean) * gain
    span = flat.amax((1, 2, 3), keepdim=True) - flat.amin((1, 2, 3), keepdim=True)
    held = field.clone().requires_grad_()
    linear = (convolved(held) * gain / span * 40 / 255 * weight).sum()
    (expected,) = torch.autograd.grad(linear, held)
    assert torch.allclose(grad[:, :280], expected) and expected.abs().max() > 0
    assert not grad[:, 280:].any()
