"""The short way to an objective's gradient gives the gradient of its value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp.attacks import KL, CrossEntropy, Discrepancy, IGNorm, Margin, Objective, Outputs
from fastinterp.attacks.slopes import SlopedValue

D, D1 = Discrepancy(units="release"), Discrepancy("1-class")
WEIGHTS = torch.tensor([0.5, -1.0, 2.0, 0.0, 3.0, 1.0, -0.1], dtype=torch.float64)
OBJECTIVES: dict[str, Objective] = {
    "cross-entropy": CrossEntropy(),
    "margin": Margin(targeted=True),
    "kl": KL(),
    "ig-norm": IGNorm(2),
    "discrepancy": D,
    "discrepancy in the paper's units": Discrepancy(),
    "1-class": D1,
    "scaled": -0.3 * D,
    "scaled by image": WEIGHTS * D,
    "scaled by a scalar tensor": torch.tensor(2.0) * D1,
    "sum": CrossEntropy() + 0.3 * D,
    "sum of sums": (D + Margin()) * WEIGHTS + (KL() + D1),
}


def away(x: Tensor) -> Tensor:
    return (x + 0.2 * torch.randn_like(x)).clamp(0, 1).requires_grad_()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("bias", [True, False])
def test_slopes_lead_to_the_gradient_of_the_value(make_tiny, batch, name: str, bias: bool) -> None:
    model, (x, y) = make_tiny(bias=bias), batch
    bound, x_adv = OBJECTIVES[name].bind(model, x, y), away(x)
    (expected,) = torch.autograd.grad(bound(x_adv).value.sum(), x_adv)
    tensors, slopes = zip(*bound.slopes(x_adv), strict=True)
    (found,) = torch.autograd.grad(tensors, x_adv, slopes)
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_fused_discrepancy_begins_at_the_features(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    bound, x_adv = D.bind(model, x, y), away(x)
    ((features, slope),) = bound.slopes(x_adv)
    assert features.shape == slope.shape == (7, 5, 3, 3)
    assert torch.equal(features, model.features(x_adv)) and not slope.requires_grad


def test_a_plain_function_will_do(make_tiny, batch) -> None:
    class Brightness(Objective):
        def prepare(self, clean: Outputs, labels: Tensor):
            return lambda adv: (adv.x - clean.x).flatten(1).sum(dim=1)

    (x, y), model = batch, make_tiny()
    bound, x_adv = (D + Brightness()).bind(model, x, y), away(x)
    (_, first), (value, ones) = bound.slopes(x_adv)
    assert first.shape == (7, 5, 3, 3)
    assert value.shape == (7,) and torch.equal(ones, torch.ones_like(value))
    assert not isinstance(Brightness().prepare(Outputs(model, x), y), SlopedValue)
