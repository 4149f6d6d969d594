"""Interpreters that need only logits explain any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastinterp._utils.errors import InputError
from fastinterp.interpreters import (
    RISE,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    Interpreter,
    SmoothGrad,
    interpretability_discrepancy,
    margin_bound,
)
from fastinterp.models.gap import GapClassifier

Make = Callable[[nn.Module], Interpreter]
ANY: list[Make] = [
    Gradient,
    GuidedBackprop,
    lambda model: IntegratedGradients(model, steps=5),
    lambda model: SmoothGrad(model, samples=4),
    lambda model: RISE(model, masks=6, cells=3),
]
every = pytest.mark.parametrize("make", ANY, ids=["gradient", "guided", "ig", "smoothgrad", "rise"])


class Same(nn.Module):
    """The function of a GapClassifier in a module that is none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


@every
def test_maps_are_those_of_the_same_gap_classifier(
    make: Make, relu_net: GapClassifier, images: Tensor
) -> None:
    wanted: list[Any] = [None, 2, [3, 0], torch.tensor([3, 0, 1]), torch.tensor([[1, 2]] * 3)]
    for classes in wanted:
        maps, expected = make(Same(relu_net))(images, classes), make(relu_net)(images, classes)
        assert torch.equal(maps, expected)


@every
def test_a_class_that_there_is_not_is_refused(
    make: Make, relu_net: GapClassifier, images: Tensor
) -> None:
    interpreter = make(Same(relu_net))
    for classes in (4, [0, 4], torch.tensor([0, 1, 4]), -1):
        with pytest.raises(InputError, match="classes must"):
            interpreter(images, classes)


@every
def test_what_gives_no_logits_is_refused(make: Make, images: Tensor) -> None:
    with pytest.raises(InputError, match=r"ReLU must give logits \[N, C\].* shape \["):
        make(nn.ReLU())(images[:, :, :3, :3].contiguous(), 0)


def test_integrated_gradients_are_complete_and_bound_the_margin() -> None:
    x, noise = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 5))
    model = model.double()
    interpreter = IntegratedGradients(model, steps=400)
    maps = interpreter(x).detach()
    with torch.no_grad():
        rise = model(x) - model(torch.zeros_like(x))
    assert torch.allclose(maps.flatten(2).sum(dim=2), rise, atol=1e-3)
    bound = margin_bound(interpreter, x, (x + 0.5 * (noise - 0.5)).clamp(0, 1))
    assert (bound.discrepancy + 1e-3 >= bound.margin / 2).all()
    moved = interpretability_discrepancy(
        interpreter, x, x, bound.labels, bound.targets, classes="1-class"
    )
    assert moved.abs().max() == 0
