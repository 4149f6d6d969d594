"""Square and FAB against the official AutoAttack: distances and fooled images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastinterp.attacks import FAB, Square
from fastinterp.attacks.hyperplane import length
from fastinterp.models import GapClassifier

pytestmark = pytest.mark.interop
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@pytest.fixture
def problem(make_tiny: Callable[..., GapClassifier]) -> tuple[GapClassifier, Tensor, Tensor]:
    """A network, and images that it classifies rightly."""
    model = make_tiny(torch.float32).eval()
    x = torch.rand((40, 1, 6, 6))
    with torch.no_grad():
        model.classifier.weight *= 20
        model.classifier.bias -= model(x).mean(0)
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", NAMES)
@pytest.mark.parametrize("n_target_classes", [None, 1])
def test_fab_finds_the_same_distances(problem, norm, n_target_classes) -> None:
    official = pytest.importorskip("autoattack.fab_pt").FABAttack_PT
    model, x, y = problem
    theirs = official(model, norm=NAMES[norm], n_iter=30)
    theirs.target_class = 2
    expected = theirs.attack_single_run(x.clone(), y, is_targeted=n_target_classes is not None)
    found = FAB(model, norm=norm, steps=30, n_target_classes=n_target_classes)(x, y)
    ours, expected = length(found - x, norm), length(expected - x, norm)
    assert (ours > 0).sum() > 20
    assert ((ours > 0) == (expected > 0)).float().mean() > 0.9
    both = (ours > 0) & (expected > 0)
    ratio = ours[both] / expected[both]
    assert abs(float(ratio.median()) - 1) < 1e-3 and abs(float(ratio.mean()) - 1) < 0.02


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 0.35), ("l1", 1.5)])
def test_square_fools_at_least_as_many(problem, norm, eps) -> None:
    """More on images this small: the official squares never reach the last row and column."""
    official = pytest.importorskip("autoattack.square").SquareAttack
    model, x, y = problem

    def fooled(attack: Callable[[int], Tensor]) -> list[float]:
        with torch.no_grad():
            return [float((model(attack(seed)).argmax(1) != y).sum()) for seed in range(6)]

    def ours(seed: int) -> Tensor:
        return Square(model, eps, queries=60, norm=norm, seed=seed)(x, y)

    def theirs(seed: int) -> Tensor:
        return official(model, norm=NAMES[norm], eps=eps, n_queries=60, seed=seed).perturb(x, y)

    mine, expected = torch.tensor(fooled(ours)), torch.tensor(fooled(theirs))
    error = ((mine.var() + expected.var()) / 6).sqrt()
    assert 4 < expected.mean() < 36  # some, not all
    assert mine.mean() > expected.mean() - 3 * error
