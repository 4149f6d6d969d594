"""Exact maps of timm's and torchvision's networks, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_exact_maps import check_exact
from torch import nn
from torchvision import models as zoo

from fastinterp import InputError, models

TORCHVISION = ["convnext_tiny", "swin_t", "swin_v2_t", "squeezenet1_1"]
TIMM: dict[str, dict[str, Any]] = {
    "convnext_atto": {},
    "convnext_femto": {},
    "convnextv2_atto": {},
    "convnextv2_femto": {},
    "swin_tiny_patch4_window7_224": {},
    "swinv2_tiny_window8_256": {},
    "swin_s3_tiny_224": {},
    "vit_tiny_patch16_224": {"global_pool": "avg"},
    "vit_small_patch32_224": {"global_pool": "avg"},
    "vit_tiny_patch16_384": {"global_pool": "avg"},
    "deit_tiny_patch16_224": {"global_pool": "avg"},
    "deit3_small_patch16_224": {"global_pool": "avg"},
    "vit_relpos_small_patch16_224": {},
    "eva02_tiny_patch14_224": {"global_pool": "avg"},
    "beit_base_patch16_224": {"global_pool": "avg", "depth": 2},
    "mixer_s32_224": {},
    "mixer_s16_224": {},
    "gmlp_ti16_224": {},
    "resmlp_12_224": {},
    "poolformer_s12": {},
    "poolformerv2_s12": {},
    "caformer_s18": {"use_mlp_head": False},
    "convformer_s18": {"use_mlp_head": False},
    "resnetv2_50": {},
    "resnetv2_50d_gn": {},
    "edgenext_xx_small": {},
    "mobilevit_xxs": {},
    "resnet18": {},
    "regnety_002": {},
    "efficientnet_b0": {},
}
REFUSED = ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "caformer_s18", "mobilenetv3_small_050"]


def varied(module: nn.Module) -> nn.Module:
    """Norms with parameters of their own, and a classifier that is not zero."""
    with torch.no_grad():
        for part in module.modules():
            if "norm" in type(part).__name__.lower() and "batch" not in type(part).__name__.lower():
                for parameter in part.parameters(recurse=False):
                    parameter.add_(0.3 * torch.randn_like(parameter))
            if isinstance(part, nn.Linear) and not part.weight.any():
                nn.init.normal_(part.weight, std=0.05)
    return module.eval()


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    module = varied(getattr(zoo, name)(num_classes=6))
    check_exact(module, models.wrap(module), torch.rand(2, 3, 64, 64))


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = varied(timm.create_model(name, pretrained=False, num_classes=6, **TIMM[name]))
    check_exact(module, models.wrap(module), torch.rand(2, *module.default_cfg["input_size"]))


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model(name, pretrained=False, num_classes=6)
    with pytest.raises(InputError, match="IntegratedGradients"):
        models.wrap(module)
