"""What makes maps say something else than a reader thinks: one clear warning."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from fastinterp import IntLoss
from fastinterp.interpreters import CAM, RISE, Gradient, IntegratedGradients, SmoothGrad
from fastinterp.interpreters.distance import margin_bound
from fastinterp.models import GapClassifier

EVERY = [CAM, Gradient, SmoothGrad, IntegratedGradients, RISE]


class Layered(GapClassifier):
    """8x8 images -> 5 maps -> 3 classes, with a layer between."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 5, 3), layer
        self.weight, self.bias = nn.Parameter(torch.rand(3, 5)), None

    def features(self, x: Tensor) -> Tensor:
        return self.layer(self.conv(x))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 1, 8, 8)


def quick(kind):
    few = {SmoothGrad: {"samples": 2}, IntegratedGradients: {"steps": 2}, RISE: {"masks": 2}}
    return lambda model: kind(model, **few.get(kind, {}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", EVERY)
def test_one_warning_each(kind) -> None:
    model, x = Layered(nn.Dropout2d(0.5)).eval(), images()
    make = quick(kind)
    make(model)(x)
    for pixels in (2 * x, x - 0.5, torch.full_like(x, torch.nan)):
        with pytest.warns(UserWarning, match=rf"^{kind.__name__}: pixels lie outside") as seen:
            make(model)(pixels)
        assert len(seen) == 1 and seen[0].filename == __file__
    with pytest.warns(UserWarning, match=rf"^{kind.__name__}: .* train mode") as seen:
        make(model.train())(x)
    assert len(seen) == 1 and seen[0].filename == __file__


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "layer",
    [nn.Dropout(0.0), nn.InstanceNorm2d(5), nn.GroupNorm(1, 5), nn.ReLU()],
    ids=lambda layer: type(layer).__name__,
)
def test_train_mode_that_changes_nothing_is_fine(layer: nn.Module) -> None:
    CAM(Layered(layer).train())(images())


@pytest.mark.filterwarnings("error")
def test_training_is_not_warned_of_its_own_mode() -> None:
    model = Layered(nn.BatchNorm2d(5)).train()
    loss = IntLoss(eps=0.1, steps=2, step_size=0.1, interpreter=quick(IntegratedGradients))
    loss(model, images(4), torch.arange(4) % 3).backward()
    with pytest.warns(UserWarning, match="train mode"):
        margin_bound(CAM(model), images(), images())


def test_compilers_and_transforms_see_nothing_of_it() -> None:
    model, x = Layered(nn.ReLU()).eval(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = torch.compile(lambda x: CAM(model)(x), fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x), CAM(model)(x), atol=1e-6)
        compiled(3 * x)
        together = torch.func.vmap(lambda one: CAM(model)(one[None])[0])(x)
    assert torch.allclose(together, CAM(model)(x), atol=1e-6)
