"""Seeds and draws of images: known values, independence of the batch, and statistics."""

from __future__ import annotations

import pytest
import torch

from fastinterp.attacks.seeds import as_below, as_sign, as_uniform, draw, draw_normal, image_seeds


def test_draws_are_those_of_splitmix64() -> None:
    # The generator's published outputs for the seed 1234567.
    known = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    drawn = draw(torch.tensor([1234567]), 0, 5)[0].tolist()
    assert [value % 2**64 for value in drawn] == known
    assert draw(torch.tensor([1234567]), 2, 3)[0].tolist() == drawn[2:]


def test_a_seed_depends_on_the_image_and_nothing_else() -> None:
    x = torch.rand((50, 3, 8, 8))
    seeds = image_seeds(x, 3)
    order = torch.randperm(50)
    assert torch.equal(image_seeds(x[order], 3), seeds[order])
    assert torch.equal(torch.cat([image_seeds(image[None], 3) for image in x]), seeds)
    assert torch.equal(image_seeds(x.double(), 3), seeds)
    assert torch.equal(image_seeds(x.contiguous(memory_format=torch.channels_last), 3), seeds)
    assert torch.equal(image_seeds(-torch.zeros((1, 4)), 3), image_seeds(torch.zeros((1, 4)), 3))


def test_seeds_differ_by_pixels_places_seed_and_purpose() -> None:
    x = torch.zeros((785, 784))
    x[torch.arange(784), torch.arange(784)] = 1 / 255  # one pixel each; the last image has none
    swapped = x.flip(1)[:1] * 2
    groups = [image_seeds(x, 0), image_seeds(x, 1), image_seeds(x, 0, "start")]
    seeds = torch.cat([*groups, image_seeds(swapped, 0)])
    assert len(seeds.unique()) == len(seeds)


@pytest.fixture(scope="module")
def bits() -> torch.Tensor:
    """[500, 400]: many similar images, many draws of each."""
    x = torch.zeros((500, 28 * 28))
    x[:, 0] = torch.arange(500) / 255
    return draw(image_seeds(x, 0), 0, 400)


def test_every_bit_is_fair(bits) -> None:
    ones = torch.stack([(bits >> k & 1).double().mean() for k in range(64)])
    assert ((ones - 0.5).abs() < 4.5 * 0.5 / bits.numel() ** 0.5).all()
    assert as_sign(bits).double().mean().sub(0.5).abs() < 4.5 * 0.5 / bits.numel() ** 0.5


@pytest.mark.parametrize("end", [2, 10, 25, 28])
def test_integers_are_uniform_and_independent(bits, end) -> None:
    chosen = as_below(bits, end)
    assert chosen.min() >= 0 and chosen.max() == end - 1
    for pairs in ((chosen[:, 1:], chosen[:, :-1]), (chosen[1:], chosen[:-1])):
        counts = torch.bincount((pairs[0] * end + pairs[1]).flatten(), minlength=end**2).double()
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        freedom = end**2 - 1
        assert abs(float(chi2) - freedom) < 4.5 * (2 * freedom) ** 0.5
    assert torch.equal(as_below(bits, torch.full_like(bits, end)), chosen)


def test_uniform_and_normal_have_their_moments(bits) -> None:
    u = as_uniform(bits).flatten()
    assert u.min() >= 0 and u.max() < 1
    normal = draw_normal(bits[:, 0], 0, 400).flatten()
    n = len(u)
    assert abs(float(u.mean()) - 1 / 2) < 4.5 * (1 / 12 / n) ** 0.5
    assert abs(float((u**2).mean()) - 1 / 3) < 4.5 * (4 / 45 / n) ** 0.5
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((normal**power).mean()) - moment) < 4.5 * (variance / n) ** 0.5


@pytest.mark.cuda
def test_the_same_on_a_gpu() -> None:
    x = torch.rand((20, 3, 8, 8))
    seeds = image_seeds(x, 5)
    assert torch.equal(image_seeds(x.cuda(), 5).cpu(), seeds)
    bits = draw(seeds, 7, 30)
    on_gpu = draw(seeds.cuda(), 7, 30)
    assert torch.equal(on_gpu.cpu(), bits)
    assert torch.equal(as_below(on_gpu, 28).cpu(), as_below(bits, 28))
    assert torch.equal(as_uniform(on_gpu).cpu(), as_uniform(bits))
