"""Folded networks: the same logits, maps and gradients as the network as written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp import models
from fastinterp.models import GapClassifier
from fastinterp.models.compiled import CompiledClassifier
from fastinterp.models.folded import FoldedClassifier
from fastinterp.models.freeze import fold
from fastinterp.models.gap import Needs, widest

MAKE = {"small": models.small, "wresnet": models.wresnet}
SIZES = [(28, 28), (32, 32), (13, 22)]
FOLDS = [("small", "maps"), ("small", "sums"), ("small", "logits"),
         ("wresnet", "maps"), ("wresnet", "logits")]  # fmt: skip


def network(name: str, channels: int = 3, dtype: torch.dtype = torch.float64) -> GapClassifier:
    model = MAKE[name](channels, 7, seed=0).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases begin at zero, where a lost one would not show
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def images(size: tuple[int, int], channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(3, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("name", "needs"), FOLDS)
def test_same_values_and_gradients(name: str, needs: Needs, size: tuple[int, int]) -> None:
    model, x = network(name), images(size).requires_grad_()
    folded = fold(model, needs, images(size))
    assert isinstance(folded, FoldedClassifier)
    features, short = model.features(x), folded.features(x)
    maps = torch.einsum("ck,nkij->ncij", model.weight, features)
    logits, sums = model.logits(features), features.sum(dim=(2, 3))
    expected = {"maps": maps, "sums": sums[:, :, None, None], "logits": logits[:, :, None, None]}[
        needs
    ]
    torch.testing.assert_close(short, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-12)
    above = torch.randn_like(expected)
    inputs = [x, *model.parameters()]
    ours = torch.autograd.grad((short * above).sum() + folded(x).square().sum(), inputs)
    theirs = torch.autograd.grad((expected * above).sum() + logits.square().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_gradient_by_a_sum_is_that_by_its_map() -> None:
    model, x = network("small"), images((28, 28))
    folded = fold(model, "sums", images((28, 28)))
    features, sums = model.features(x), folded.features(x)
    (by_features,) = torch.autograd.grad(model.logits(features).logsumexp(1).sum(), features)
    (by_sums,) = torch.autograd.grad(folded.logits(sums).logsumexp(1).sum(), sums)
    torch.testing.assert_close(by_sums.expand_as(by_features), by_features, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "needs"), FOLDS)
def test_float32_is_as_exact_as_the_network_as_written(name: str, needs: Needs) -> None:
    exact, x = network(name), images((28, 28))
    model = network(name, dtype=torch.float32)
    truth = exact(x).detach()

    def error(logits: Tensor) -> float:
        return float((logits.detach().double() - truth).norm())

    short = fold(model, needs, images((28, 28)))
    assert error(short(x.float())) <= 2 * error(model(x.float())) + 1e-7 * float(truth.norm())


def test_a_bias_of_the_classifier_is_kept() -> None:
    class Biased(type(network("small"))):  # type: ignore[misc]
        bias = torch.arange(7.0, dtype=torch.float64)

    model, x = network("small"), images((28, 28))
    model.__class__ = Biased
    for needs in ("maps", "sums", "logits"):
        torch.testing.assert_close(fold(model, needs, images((28, 28)))(x), model(x))


def test_folding_needs_to_what_it_can() -> None:
    small, pool = models.small(seed=0), models.pool(seed=0)
    many = models.small(num_classes=150, seed=0)
    assert fold(small, "features", images((28, 28))) is small
    assert fold(pool, "logits", images((28, 28))) is pool  # its last layer is no linear one
    residual = models.wresnet(seed=0)
    assert fold(residual, "sums", images((28, 28))) is residual  # one layer of 31: little to gain
    assert fold(many, "maps", images((28, 28))) is many  # more maps than features: nothing to gain
    assert fold(many, "logits", images((28, 28))).weight.shape == (
        150,
        100,
    )  # nor more logits than sums
    torch.testing.assert_close(
        fold(many, "logits", images((28, 28)))(images((28, 28), 1).float()),
        many(images((28, 28), 1).float()),
        rtol=1e-4,
        atol=1e-5,
    )
    folded = fold(small, "maps", images((28, 28)))
    assert fold(folded, "logits", images((28, 28))) is folded
    plain = torch.nn.Linear(4, 2)
    assert fold(plain, "logits", images((28, 28))) is plain
    assert widest(["logits", "maps"]) == "maps"
    assert widest(["logits", "sums", "logits"]) == "sums"
    assert widest(["maps", "sums"]) == "features"  # maps of classes do not give the sums of A
    assert widest([]) == "logits"


def test_shares_parameters_and_modes() -> None:
    model = models.small(seed=0).eval()
    folded = fold(model, "maps", images((28, 28)))
    assert {id(p) for p in folded.parameters()} == {id(p) for p in model.parameters()}
    assert not folded.training
    folded.train()
    assert model.training


def test_autocast_rounds_no_product_of_weights() -> None:
    model, x = models.small(seed=0), images((28, 28), 1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        folded = fold(model, "maps", images((28, 28)))
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)


def test_compiled_networks_fold_too() -> None:
    model, x = models.small(seed=0), images((28, 28), 1, torch.float32)
    compiled = CompiledClassifier(model)
    for needs in ("maps", "sums", "logits"):
        folded = fold(compiled, needs, images((28, 28)))
        assert isinstance(folded, FoldedClassifier)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    assert fold(compiled, "features", images((28, 28))) is compiled
