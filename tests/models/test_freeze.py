"""Networks whose parameters are constants: the same outputs, in one kernel where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastinterp import PGD, models
from fastinterp.attacks import CrossEntropy, Discrepancy, Outputs, ascent
from fastinterp.attacks.ig_norm import IGNorm
from fastinterp.models import GapClassifier
from fastinterp.models.compiled import CompiledClassifier
from fastinterp.models.freeze import FrozenClassifier, fold, freeze
from fastinterp.models.gap import Needs
from fastinterp.models.networks import LayeredClassifier
from fastinterp.ops.conv_stack import serves

pytestmark = pytest.mark.skipif(
    not serves(torch.ones(1, 1, 1, 1)), reason="no kernel serves here"
)  # fmt: skip


def images(channels: int = 1, size: tuple[int, int] = (28, 28)) -> Tensor:
    return torch.rand(4, channels, *size)


@pytest.fixture
def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own layers, whatever there is a kernel for."""
    monkeypatch.setattr(ascent, "freeze", lambda model, *_: model)


@pytest.mark.parametrize("needs", ["logits", "sums", "maps", "features"])
@pytest.mark.parametrize(
    ("channels", "classes", "size"),
    [(1, 10, (28, 28)), (3, 4, (32, 32)), (3, 120, (16, 21)), (1, 2, (9, 14))],
)
@pytest.mark.parametrize("make", [models.small, models.pool])
def test_a_frozen_network_gives_what_the_network_gives(
    make, needs: Needs, channels: int, classes: int, size: tuple[int, int]
) -> None:
    x, found = images(channels, size), []
    network = fold(make(channels, classes, seed=0), needs, x)
    frozen = freeze(network, x)
    assert isinstance(frozen, FrozenClassifier)
    for model in (network, frozen):
        outputs = Outputs(model, x.clone().requires_grad_())
        above = torch.linspace(-1, 1, outputs.features.numel()).view_as(outputs.features)
        by_features = torch.autograd.grad(outputs.features, outputs.x, above, retain_graph=True)
        by_logits = torch.autograd.grad(outputs.logits.square().sum(), outputs.x)
        found.append((outputs.features, outputs.logits, *by_features, *by_logits))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def attack(objective, keep: str = "last", make=models.small) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, model = images(), make(seed=0)
    y = model(x).argmax(dim=1)
    pgd = PGD(model, 0.1, 0.05, 4, objective=objective, random_start=True, keep=keep)
    torch.manual_seed(1)
    return x, pgd(x, y)


@pytest.mark.parametrize("keep", ["last", "first_fooled", "best"])
@pytest.mark.parametrize("make", [CrossEntropy, Discrepancy, lambda: IGNorm(2)])
@pytest.mark.parametrize("network", [models.small, models.pool])
def test_attacks_go_where_they_went_before(network, make, keep: str, request) -> None:
    _, found = attack(make(), keep, network)
    request.getfixturevalue("as_written")
    _, expected = attack(make(), keep, network)
    # Where a gradient is all but zero its sign is a matter of rounding.
    assert ((found - expected).abs() > 1e-5).float().mean() < 0.01


@pytest.mark.skipif(not serves(torch.ones(1, 1, 1, 1), bf16=True), reason="no units for bfloat16")
@pytest.mark.parametrize("make", [models.small, models.pool])
def test_bf16_runs_in_the_kernel_and_gives_float32(make) -> None:
    model, x = make(seed=0), images()
    narrow = freeze(model, x, "bf16")
    assert isinstance(narrow, FrozenClassifier)
    features = Outputs(narrow, x, "bf16").features
    exact = model.features(x)
    assert features.dtype == torch.float32
    assert 1e-5 < (features - exact).norm() / exact.norm() < 0.01


def test_a_watched_network_is_run_as_it_is() -> None:
    model, x, seen = models.small(seed=0), images(), []
    hook = model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    PGD(model, 0.1, steps=3)(x, torch.zeros(4, dtype=torch.int64))
    assert len(seen) >= 3
    hook.remove()
    assert isinstance(freeze(model, x), FrozenClassifier)


def test_a_network_with_layers_of_somebody_elses_is_run_as_it_is() -> None:
    model, x = models.small(seed=0), images()
    hook = model.layers[1].register_full_backward_hook(lambda *_: None)
    assert freeze(model, x) is model
    hook.remove()
    model.layers[1] = torch.nn.Conv2d(16, 32, 4, stride=2, padding=1)
    assert freeze(model, x) is model
    assert PGD(model, 0.1, steps=2)(x, torch.zeros(4, dtype=torch.int64)).shape == x.shape


def test_parameters_have_the_values_of_the_climb() -> None:
    model, x = models.small(seed=0), images()
    for _ in range(2):
        expected = model.features(x)
        torch.testing.assert_close(freeze(model, x).features(x), expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            model.layers[0].weight.mul_(-0.5)


class Brighter(LayeredClassifier):
    """A subclass with features of its own."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x + 0.1)


def other_networks() -> list[tuple[GapClassifier, Tensor]]:
    small = models.small(seed=0)
    return [
        (Brighter("small", 1, 10).initialise(0), images()),
        (models.small(seed=0).double(), images().double()),
        (models.wresnet(1, seed=0), images()),
        (CompiledClassifier(small), images()),
        (fold(CompiledClassifier(small), "maps", images()), images()),
    ]


@pytest.mark.parametrize("index", range(5))
def test_other_networks_and_types_are_run_as_they_are(index: int) -> None:
    model, x = other_networks()[index]
    assert freeze(model, x) is model


def test_a_last_layer_that_somebody_watches_or_put_in_is_not_folded() -> None:
    x, y = images(), torch.zeros(4, dtype=torch.int64)
    watched, replaced = models.small(seed=0), models.small(seed=0)
    seen: list[int] = []
    watched.layers[-1].register_forward_hook(lambda *_: seen.append(1))
    replaced.layers[-1] = torch.nn.Conv2d(32, 100, 7, padding=3)
    brighter = Brighter("small", 1, 10).initialise(0)
    for model in (watched, replaced, brighter):
        assert fold(model, "logits", x) is model
    PGD(watched, 0.1, steps=3)(x, y)
    assert len(seen) >= 3
    assert PGD(replaced, 0.1, steps=2)(x, y).shape == x.shape
