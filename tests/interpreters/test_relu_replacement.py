"""Every spelling of ReLU is replaced, and only inside the block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastinterp.interpreters.relu import ReplaceReLU, guided_relu

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.relu": torch.relu,
    "F.relu": F.relu,
    "F.relu(input=)": lambda x: F.relu(input=x),
    "nn.ReLU": nn.ReLU(),
    "Tensor.relu": lambda x: x.relu(),
    "torch.relu_": torch.relu_,
    "F.relu_": F.relu_,
    "F.relu(inplace=True)": lambda x: F.relu(x, inplace=True),
    "F.relu(x, True)": lambda x: F.relu(x, True),
    "nn.ReLU(inplace=True)": nn.ReLU(inplace=True),
    "Tensor.relu_": lambda x: x.relu_(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_replaces_it_and_its_gradient(name: str) -> None:
    relu = SPELLINGS[name]
    leaf = torch.randn(50, dtype=torch.float64, requires_grad=True)
    value = leaf * 1  # an in-place form may not write into a leaf
    with ReplaceReLU(F.softplus) as mode:
        result = relu(value)
    assert mode.replaced == 1
    torch.testing.assert_close(result, F.softplus(leaf))
    if result is value:  # in place: whoever holds the old name sees the new values
        assert name.endswith(("_", "True)"))
    (grad,) = torch.autograd.grad(result.sum(), leaf, create_graph=True)
    torch.testing.assert_close(grad, torch.sigmoid(leaf))
    (second,) = torch.autograd.grad(grad.sum(), leaf)
    torch.testing.assert_close(second, torch.sigmoid(leaf) * torch.sigmoid(-leaf))
    assert torch.equal(relu(leaf.detach().clone()), leaf.detach().clamp(min=0))


@pytest.mark.parametrize("name", [each for each in SPELLINGS if each.endswith(("_", "True)"))])
def test_in_place_forms_stay_in_place(name: str) -> None:
    value = torch.tensor([-1.0, 1.0])
    with ReplaceReLU(F.softplus):
        result = SPELLINGS[name](value)
    assert result is value
    torch.testing.assert_close(value, F.softplus(torch.tensor([-1.0, 1.0])))


def test_is_gone_after_an_error() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError("from inside")

    with pytest.raises(ValueError, match="from inside"), ReplaceReLU(fails):
        torch.relu(torch.zeros(1))
    assert torch.relu(torch.tensor(-1.0)) == 0


def test_other_functions_pass_through() -> None:
    with ReplaceReLU(F.softplus) as mode:
        value = torch.tensor([-1.0, 1.0])
        assert torch.equal(F.leaky_relu(value).sign(), value)
        assert torch.equal(value.clamp(min=0), torch.tensor([0.0, 1.0]))
    assert mode.replaced == 0


def test_guided_relu() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0, 3.0], requires_grad=True)
    y = guided_relu(x)
    assert torch.equal(y, torch.tensor([0.0, 0.0, 2.0, 3.0]))
    (grad,) = torch.autograd.grad(y, x, torch.tensor([1.0, 1.0, -1.0, 5.0]))
    assert torch.equal(grad, torch.tensor([0.0, 0.0, 0.0, 5.0]))
