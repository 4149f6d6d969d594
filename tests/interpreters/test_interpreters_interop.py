"""Other libraries' interpreters give the maps that ours do, where the mathematics is the same."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from fastinterp.interpreters import (
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from fastinterp.models.gap import GapClassifier

pytestmark = pytest.mark.interop

LABELS = torch.tensor([3, 0, 2])


class Peer(GapClassifier):
    """A network in modules, as hooks want it; ReLU in the middle, the last convolution bare."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(6, 8, 3)
        self.weight = nn.Parameter(torch.randn(4, 8))
        self.bias = nn.Parameter(torch.randn(4))

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(x)))


@pytest.fixture
def peer() -> Peer:
    return Peer().double().eval()


def test_captum_layer_gradcam(peer: Peer, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    theirs = attr.LayerGradCam(peer, peer.last).attribute(images, LABELS)
    torch.testing.assert_close(GradCAM(peer)(images, LABELS), theirs)


def test_captum_integrated_gradients(peer: Peer, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    start = torch.rand_like(images)
    theirs = attr.IntegratedGradients(peer).attribute(
        images, start, LABELS, n_steps=13, method="riemann_right"
    )
    ours = IntegratedGradients(peer, 13).between(start, images, LABELS)
    torch.testing.assert_close(ours[:, 0].detach(), theirs)


def test_captum_saliency(peer: Peer, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    x = images.clone().requires_grad_()
    theirs = attr.Saliency(peer).attribute(x, LABELS, abs=False)
    torch.testing.assert_close(Gradient(peer)(images, LABELS)[:, 0].detach(), theirs)


def test_captum_guided_backprop(peer: Peer, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the hooks that it sets
        theirs = attr.GuidedBackprop(peer).attribute(images.clone().requires_grad_(), LABELS)
    torch.testing.assert_close(GuidedBackprop(peer)(images, LABELS)[:, 0].detach(), theirs)


def test_captum_noise_tunnel(peer: Peer, images: Tensor) -> None:
    """Theirs draws other noise: many samples of both agree within the error of the mean."""
    attr = pytest.importorskip("captum.attr")
    x = images[:1].clone().requires_grad_()
    theirs = attr.NoiseTunnel(attr.Saliency(peer)).attribute(
        x, nt_type="smoothgrad", nt_samples=4000, stdevs=0.2, target=LABELS[:1], abs=False
    )
    ours = SmoothGrad(peer, samples=4000, noise=0.2)(images[:1], LABELS[:1])[:, 0].detach()
    exact = Gradient(peer)(images[:1], LABELS[:1])[:, 0].detach()
    difference = (ours - theirs).abs().max()
    assert difference < 0.05 * exact.abs().max()
    assert difference < 0.25 * (ours - exact).abs().max()


def test_pytorch_grad_cam_plus_plus(peer: Peer, images: Tensor) -> None:
    """Their denominators carry 1e-6, so the gradients are made large beside it."""
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam import GradCAMPlusPlus as Theirs
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with torch.no_grad():
        peer.weight.mul_(1000)
    targets = [ClassifierOutputTarget(int(label)) for label in LABELS]
    ours = GradCAMPlusPlus(peer, "standard")(images, LABELS)[:, 0].detach()

    class Raw(Theirs):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            """Without the ReLU, scaling and enlargement that follow for pictures."""
            gradients = self.activations_and_grads.gradients[0].numpy()
            activations = self.activations_and_grads.activations[0].numpy()
            self.raw = self.get_cam_image(
                input_tensor, peer.last, targets, activations, gradients, eigen_smooth
            )
            return super().compute_cam_per_layer(input_tensor, targets, eigen_smooth)

    with Raw(model=peer, target_layers=[peer.last]) as cam:
        cam(input_tensor=images.clone(), targets=targets)
        theirs = torch.from_numpy(cam.raw)
    assert theirs.shape == ours.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))
