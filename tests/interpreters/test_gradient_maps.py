"""Gradient, SmoothGrad and GuidedBackprop against formulas written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn import functional as F

from fastinterp.interpreters import Gradient, GuidedBackprop, SmoothGrad
from fastinterp.models.gap import GapClassifier


def jacobians(model: GapClassifier, x: Tensor) -> Tensor:
    return torch.stack([jacrev(lambda z: model(z[None])[0])(image) for image in x]).detach()


def test_gradient_is_the_jacobian(relu_net: GapClassifier, images: Tensor) -> None:
    torch.testing.assert_close(Gradient(relu_net)(images).detach(), jacobians(relu_net, images))


@pytest.mark.parametrize("chunk_size", [2, 5, 512])
def test_smoothgrad_is_the_mean_over_the_noise(
    relu_net: GapClassifier, images: Tensor, chunk_size: int
) -> None:
    interpreter = SmoothGrad(relu_net, samples=6, noise=0.3, seed=4, chunk_size=chunk_size)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(6, 2, 7, 6, generator=generator, dtype=torch.float64)
    expected = torch.stack([jacobians(relu_net, images + 0.3 * one) for one in noise]).mean(0)
    torch.testing.assert_close(interpreter(images).detach(), expected)


def test_smoothgrad_without_noise_is_the_gradient(relu_net: GapClassifier, images: Tensor) -> None:
    maps = SmoothGrad(relu_net, samples=2, noise=0.0)(images)
    torch.testing.assert_close(maps, Gradient(relu_net)(images))


def test_smoothgrad_changes_with_the_seed(relu_net: GapClassifier, images: Tensor) -> None:
    one, other = (SmoothGrad(relu_net, 2, seed=seed)(images) for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_guided_backprop_by_hand(relu_net: GapClassifier, images: Tensor) -> None:
    """Transposed convolutions, with the two signs of the guided rule in between."""
    first, second = (relu_net.get_submodule(name) for name in ("first", "second"))
    with torch.no_grad():
        hidden = first(images)  # [N, 4, 7, 6]
        a = second(hidden.relu())  # [N, 5, 3, 2]
        expected = []
        for c in range(relu_net.num_classes):
            to_a = relu_net.weight[c].view(1, -1, 1, 1).expand_as(a) / a[0, 0].numel()
            to_hidden = F.conv_transpose2d(to_a, second.weight, stride=2, output_padding=(0, 1))
            guided = to_hidden.clamp(min=0) * (hidden > 0)
            expected.append(F.conv_transpose2d(guided, first.weight, padding=1))
    maps = GuidedBackprop(relu_net)(images).detach()
    torch.testing.assert_close(maps, torch.stack(expected, dim=1))
    assert not torch.allclose(maps, Gradient(relu_net)(images))
