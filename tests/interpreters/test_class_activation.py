"""CAM and GradCAM against eq. (1), GradCAM++ against its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastinterp import models
from fastinterp._utils.errors import InputError
from fastinterp.interpreters import CAM, GradCAM, GradCAMPlusPlus
from fastinterp.models.gap import GapClassifier


def by_loops(features: Tensor, weight: Tensor) -> Tensor:
    """Eq. (1), entry by entry."""
    count, channels, height, width = features.shape
    maps = torch.zeros(count, len(weight), height, width, dtype=features.dtype)
    for n in range(count):
        for c in range(len(weight)):
            for k in range(channels):
                maps[n, c] += weight[c, k] * features[n, k] / (height * width)
    return maps


@pytest.mark.parametrize("classes", [None, [2, 0], torch.tensor([[1, 3], [0, 2], [2, 2]])])
@torch.no_grad()
def test_cam_is_equation_1(relu_net: GapClassifier, images: Tensor, classes: object) -> None:
    expected = by_loops(relu_net.features(images), relu_net.weight)
    if isinstance(classes, list):
        expected = expected[:, classes]
    elif isinstance(classes, Tensor):
        expected = torch.stack([maps[ids] for maps, ids in zip(expected, classes, strict=True)])
    torch.testing.assert_close(CAM(relu_net)(images, classes), expected)


@torch.no_grad()
def test_cam_is_complete(relu_net: GapClassifier, images: Tensor) -> None:
    sums = CAM(relu_net)(images).sum(dim=(2, 3))
    assert relu_net.bias is not None
    torch.testing.assert_close(sums, relu_net(images) - relu_net.bias)


@torch.no_grad()
def test_cam_is_complete_on_a_released_network(shared: Path) -> None:
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl").double()
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(CAM(model)(x).sum(dim=(2, 3)), model(x))


def test_cam_of_chosen_classes_checks_them_unless_told_not_to(relu_net: GapClassifier) -> None:
    features = torch.rand(2, 5, 3, 3, dtype=torch.float64)
    with pytest.raises(InputError, match=r"0\.\.3"):
        CAM(relu_net).from_features(features, torch.tensor([1, 7]))
    good = torch.tensor([1, 3])
    checked = CAM(relu_net).from_features(features, good)
    assert torch.equal(CAM(relu_net).from_features(features, good, validate=False), checked)


def test_gradcam_is_cam_for_a_linear_head(relu_net: GapClassifier, images: Tensor) -> None:
    torch.testing.assert_close(GradCAM(relu_net)(images), CAM(relu_net)(images))


def with_another_head(model: GapClassifier) -> GapClassifier:
    """The same features under a head that is not linear in them."""

    class Squared(type(model)):
        def logits(self, features: Tensor) -> Tensor:
            return super().logits(features.square() + features.sin())

    model.__class__ = Squared
    return model


def test_gradcam_follows_another_head(smooth: GapClassifier, images: Tensor) -> None:
    model = with_another_head(smooth)
    a = model.features(images).detach()
    # d logit / d A = weight / u * (2 A + cos A), by hand.
    by_feature = 2 * a + a.cos()  # [N, K, h, w]
    w = model.weight.detach() * by_feature.mean(dim=(2, 3))[:, None] / a[0, 0].numel()  # [N, C, K]
    torch.testing.assert_close(
        GradCAM(model)(images).detach(), torch.einsum("nck,nkhw->nchw", w, a)
    )


@torch.no_grad()
def test_gradcam_plus_plus_of_the_paper(relu_net: GapClassifier, images: Tensor) -> None:
    expected = by_loops(relu_net.features(images), relu_net.weight.clamp(min=0))
    torch.testing.assert_close(GradCAMPlusPlus(relu_net)(images), expected)


def test_gradcam_plus_plus_standard_from_third_derivatives(
    smooth: GapClassifier, images: Tensor
) -> None:
    """Eqs. (10) to (13) of Chattopadhay et al., with Y = exp(f_c) differentiated by autograd.

    Their third derivative is that of one entry of A by itself; the closed form that everyone
    uses leaves out the second derivatives of f, which vanish for a linear head.
    """
    a = smooth.features(images).detach()
    maps = GradCAMPlusPlus(smooth, "standard")(images).detach()
    for n in range(len(a)):
        for c in range(smooth.num_classes):
            first, second, third = (torch.zeros_like(a[n]) for _ in range(3))
            for place in range(a[n].numel()):
                t = torch.zeros((), dtype=a.dtype, requires_grad=True)
                moved = a[n].flatten().index_add(0, torch.tensor([place]), t[None])
                y = smooth.logits(moved.view_as(a[n])[None])[0, c].exp()
                (d1,) = torch.autograd.grad(y, t, create_graph=True)
                (d2,) = torch.autograd.grad(d1, t, create_graph=True)
                (d3,) = torch.autograd.grad(d2, t)
                for store, value in ((first, d1), (second, d2), (third, d3)):
                    store.view(-1)[place] = value.detach()
            alpha = second / (2 * second + a[n].sum(dim=(1, 2), keepdim=True) * third)
            w = (alpha * first.clamp(min=0)).sum(dim=(1, 2))  # [K]
            expected = torch.einsum("k,khw->hw", w, a[n])
            scale = smooth.logits(a[n][None])[0, c].exp().detach()  # the factor left out
            torch.testing.assert_close(maps[n, c] * scale, expected, rtol=1e-8, atol=1e-12)


@torch.no_grad()
def test_gradcam_plus_plus_standard_survives_zero_and_tiny_weights(
    relu_net: GapClassifier, images: Tensor
) -> None:
    relu_net.float().weight.zero_()
    assert torch.equal(
        GradCAMPlusPlus(relu_net, "standard")(images.float()), torch.zeros(3, 4, 3, 2)
    )
    relu_net.weight.fill_(1e-25)  # its square is 0 in float32
    maps = GradCAMPlusPlus(relu_net, "standard")(images.float())
    torch.testing.assert_close(
        maps,
        relu_net.features(images.float()).sum(1)[:, None].expand(3, 4, 3, 2) * 0.5e-25,
        rtol=1e-4,
        atol=0,
    )
