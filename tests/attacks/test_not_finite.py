"""Networks whose gradients or logits are not finite: attacks say so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastinterp import PGD, InputError
from fastinterp.attacks import (
    AAI,
    APGD,
    ISA,
    CrossEntropy,
    Elastic,
    Fog,
    LinfBall,
    MinimalPGD,
    Snow,
    ascend,
)
from fastinterp.attacks.ascent import is_fooled
from fastinterp.interpreters import CAM
from fastinterp.models import GapClassifier


class Steep(GapClassifier):
    """Finite logits; where a pixel is changed, or from the start, their gradient is NaN."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(1, 5, 3)
        self.classifier = nn.Linear(5, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.to(dtype)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.classifier.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.classifier.bias

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x) + (0 * x).sum(dim=(1, 2, 3), keepdim=True).sqrt()


class Blind(Steep):
    """Logits that are NaN where pixels are not whole numbers."""

    def features(self, x: Tensor) -> Tensor:
        whole = (x == x.round()).all(dim=(1, 2, 3), keepdim=True)
        return self.conv(x) + torch.where(whole, 0, torch.nan)


ATTACKS: dict[str, Callable[[GapClassifier], Callable[..., object]]] = {
    "PGD": lambda model: PGD(model, 0.1, 0.05, 2),
    "PGD with restarts": lambda model: PGD(
        model, 0.1, 0.05, 2, random_start=True, restarts=2, keep="first_fooled"
    ),
    "APGD": lambda model: APGD(model, 0.1, 9),
    "APGD in l1": lambda model: APGD(model, 0.1, 9, "l1", keep="last"),
    "MinimalPGD": lambda model: MinimalPGD(model, steps=2),
    "MinimalPGD, last": lambda model: MinimalPGD(model, steps=2, keep="last"),
    "ISA": lambda model: lambda x, y: ISA(model, CAM(model), steps=2)(x, y, (y + 1) % 4),
    "AAI": lambda model: AAI(model, CAM(model), 0.1, 0.05, 2, keep="last"),
    "Elastic": lambda model: Elastic(model, steps=2),
    "Fog": lambda model: Fog(model, steps=2),
    "Snow": lambda model: Snow(model, steps=2),
}


def batch(model: GapClassifier) -> tuple[Tensor, Tensor]:
    x = torch.rand((6, 1, 32, 32), generator=torch.Generator().manual_seed(1)).round()
    return x, model(x).argmax(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_gradient_that_is_not_finite_is_blamed_in_every_norm(norm: str) -> None:
    model = Steep()
    with pytest.raises(InputError, match="PGD: the gradient"):
        PGD(model, 0.1, 0.05, 2, norm)(*batch(model))
    with pytest.raises(InputError, match="APGD: the gradient"):
        APGD(model, 0.1, 9, norm)(*batch(model))


@pytest.mark.parametrize("network", [Steep, Blind])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_not_finite_is_blamed(name: str, network: type[Steep]) -> None:
    model = network()
    with pytest.raises(InputError, match=r"the gradient|logits") as caught:
        ATTACKS[name](model)(*batch(model))
    assert "\n" not in str(caught.value)
    if network is Steep:  # whose images are NaN after a step: not the checkpoint's fault
        assert "checkpoint" not in str(caught.value)


def test_logits_that_are_not_finite_fool_nobody() -> None:
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [0.0, torch.inf]])
    assert is_fooled(logits, torch.tensor([0, 1, 0]), targeted=False).tolist() == [
        True,
        False,
        False,
    ]
    assert is_fooled(logits, torch.tensor([1, 0, 1]), targeted=True).tolist() == [
        True,
        False,
        False,
    ]


def test_training_goes_on_without_a_check() -> None:
    """The inner loop may not wait for a GPU; the loss has its own check."""
    model = Steep()
    x, y = batch(model)
    ascend(model, LinfBall(0.1, 0.05), CrossEntropy(), x, y, 2)
