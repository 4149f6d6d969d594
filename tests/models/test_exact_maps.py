"""Class activation maps that are exact behind a norm, of tokens and of maps [N, h, w, K]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from fastinterp import InputError, IntTrainer, models, ops
from fastinterp.interpreters import CAM
from fastinterp.models import GapClassifier

SMALL: dict[str, Any] = {"num_classes": 5}


class Tokens(nn.Module):
    """A token network with mean pooling; its class token is left out of the mean."""

    def __init__(self, norm: nn.Module, prefix: int = 1, pooled: bool = True) -> None:
        super().__init__()
        self.num_prefix_tokens = prefix
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, prefix, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.fc_norm, self.fc, self.pooled = norm, nn.Linear(8, 5), pooled

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.forward_features(x)
        pooled = tokens[:, self.num_prefix_tokens :].mean(dim=1) if self.pooled else tokens[:, 0]
        return self.fc(self.fc_norm(pooled))


def convnext() -> nn.Module:
    parts = [zoo.convnext.CNBlockConfig(8, 16, 1), zoo.convnext.CNBlockConfig(16, None, 1)]
    return zoo.ConvNeXt(parts, **SMALL)


def swin() -> nn.Module:
    return zoo.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], **SMALL)


SERVED: dict[str, Callable[[], nn.Module]] = {
    "convnext": convnext,
    "swin": swin,
    "layer norm on tokens": lambda: Tokens(nn.LayerNorm(8)),
    "rms norm on tokens": lambda: Tokens(nn.RMSNorm(8, eps=1e-6)),
    "two prefix tokens": lambda: Tokens(nn.Identity(), prefix=2),
    "group norm": lambda: Tokens(nn.GroupNorm(1, 8), prefix=0),
    "normalised": lambda: nn.Sequential(nn.InstanceNorm2d(3), Tokens(nn.LayerNorm(8))),
}


def made(name: str) -> nn.Module:
    """A network whose norms have parameters of their own."""
    module = SERVED[name]().eval()
    with torch.no_grad():
        for part in module.modules():
            if "Norm" in type(part).__name__:
                for parameter in part.parameters(recurse=False):
                    parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def check_exact(module: nn.Module, wrapped: GapClassifier, x: Tensor) -> None:
    """The maps' sums and beta are the logits; Proposition 1's inequality holds in every class."""
    near = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    with torch.no_grad():
        logits, cam = module(x), CAM(wrapped)
        maps, moved = cam(x), cam(near)
        bias = 0 if wrapped.bias is None else wrapped.bias
        error = (maps.sum(dim=(2, 3)) + bias - logits).abs().max() / logits.abs().max()
        assert error < 1e-5, error
        classes = range(logits.shape[1])
        change = module(near) - logits
        distance = (moved - maps).abs().sum(dim=(2, 3))
        for true in classes:  # the two maps move at least as much as the margin of their classes
            both = distance + distance[:, true : true + 1]
            margin = (change - change[:, true : true + 1]).abs()
            assert (both >= margin - 1e-5 * logits.abs().max()).all()


@pytest.mark.parametrize("name", SERVED)
def test_maps_are_exact(name: str) -> None:
    module = made(name)
    x = torch.rand(2, 3, 64, 48 if name != "swin" else 64)
    check_exact(module, models.wrap(module), x)


@pytest.mark.parametrize("name", SERVED)
def test_gradients_are_those_of_the_network(name: str) -> None:
    module = made(name).double()
    wrapped, x = models.wrap(module), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(wrapped(x).square().sum(), parameters, materialize_grads=True)
    wanted = torch.autograd.grad(module(x).square().sum(), parameters, materialize_grads=True)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_the_weight_follows_the_parameters() -> None:
    module = made("convnext")
    wrapped, x = models.wrap(module), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.2)
    check_exact(module, wrapped, x)


def test_tokens_are_laid_out_as_in_the_image() -> None:
    module = made("layer norm on tokens")
    wrapped, x = models.wrap(module), torch.rand(1, 3, 32, 64)
    tokens = module.forward_features(x)[:, 1:]
    norm = wrapped.features(x)[0, :, 1, 3] / tokens[0, 16 + 3]
    torch.testing.assert_close(norm, norm[:1].expand(8))
    assert wrapped.features(x).shape == (1, 8, 8, 16)


def test_the_discrepancy_runs_behind_a_norm() -> None:
    wrapped, x = models.wrap(made("convnext")), torch.rand(2, 3, 64, 64)
    labels = torch.tensor([0, 1])
    a, b = wrapped.features(x), wrapped.features(x.flip(0))
    value = ops.discrepancy(a, b, wrapped.weight, labels, bias=wrapped.bias)
    assert value.requires_grad
    value.sum().backward()
    assert all(p.grad is not None for p in wrapped.module.classifier.parameters())


@pytest.mark.parametrize("name", ["convnext", "swin", "layer norm on tokens"])
def test_int_trains_them(name: str) -> None:
    wrapped = models.wrap(made(name))
    before = wrapped.weight.detach().clone()
    x, y = torch.rand(6, 3, 32, 32), torch.randint(0, 5, (6,))
    trainer = IntTrainer(wrapped, eps=0.03, steps=2, step_size=0.02)
    trainer.fit((x, y), epochs=2)
    assert not torch.equal(before, wrapped.weight)
    assert torch.isfinite(wrapped(x)).all()


def test_class_tokens_are_refused_with_the_way_out() -> None:
    vit = zoo.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5)
    with pytest.raises(InputError, match=r'class token.*global_pool="avg".*IntegratedGradients'):
        models.wrap(vit)
    with pytest.raises(InputError, match="gives the logits"):
        models.wrap(Tokens(nn.LayerNorm(8), pooled=False))
