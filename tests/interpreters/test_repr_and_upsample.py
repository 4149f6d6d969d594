"""The representation itself, and maps at the size of the image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp._utils.errors import InputError
from fastinterp.interpreters import Repr, upsample
from fastinterp.models.gap import GapClassifier


def test_repr_is_the_feature_maps(relu_net: GapClassifier, images: Tensor) -> None:
    features = relu_net.features(images)
    for classes in (None, 1, torch.tensor([0, 1, 2])):
        assert torch.equal(Repr(relu_net)(images, classes), features)
    assert Repr(relu_net).from_features(features) is features


def test_upsample_doubles_by_hand() -> None:
    """Twice the size: new samples lie a quarter of a cell from the old ones."""
    maps = torch.tensor([[[[0.0, 4.0]]]], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64).expand(1, 1, 3, 4)
    assert torch.equal(upsample(maps, (3, 4)), expected)


def test_upsample_is_differentiable() -> None:
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: upsample(maps, 9), (maps,))
    assert torch.autograd.gradgradcheck(lambda maps: upsample(maps, 9).square(), (maps,))


def test_upsample_refuses_other_shapes() -> None:
    with pytest.raises(InputError, match="maps must be"):
        upsample(torch.zeros(3, 4, 5), 8)
    with pytest.raises(InputError, match="size"):
        upsample(torch.zeros(1, 1, 2, 2), (0, 4))
