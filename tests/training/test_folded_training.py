"""Training and attacks through folded networks take the steps of the networks as written."""

from __future__ import annotations

import pytest
import torch

from fastinterp import PGD, models
from fastinterp.attacks import Discrepancy
from fastinterp.models.networks import LayeredClassifier
from fastinterp.training import METHODS, Trainer
from fastinterp.training.methods import method


class AsWritten(LayeredClassifier):
    """The same network, never folded."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return super().features(x)


def pair(name: str) -> tuple[LayeredClassifier, LayeredClassifier]:
    """A network that folds and one that does not, in float64, where a sign cannot hang on it."""
    folds = models.build({"name": name, "in_channels": 1, "num_classes": 10}, seed=0).double()
    written = AsWritten(name, 1, 10).double()
    written.load_state_dict(folds.state_dict())
    return folds, written  # type: ignore[return-value]


def batch(size: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 1, size, size, dtype=torch.float64, generator=generator)
    return x, torch.tensor([1, 0, 9, 3])


@pytest.mark.parametrize("name", METHODS)
def test_steps_agree(name: str) -> None:
    x, y = batch()
    losses, weights = [], []
    for model in pair("small"):
        trainer = Trainer(model, method(name), eps=0.2, steps=3, step_size=0.05, lr=1e-3)
        losses.append(torch.stack([trainer.training_step(x, y).loss for _ in range(3)]))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["small", "wresnet"])
@pytest.mark.parametrize("objective", [None, Discrepancy()], ids=["cross-entropy", "discrepancy"])
def test_attacks_agree(name: str, objective: Discrepancy | None) -> None:
    x, y = batch()
    found = [
        PGD(
            model, 0.2, 0.05, 5, objective=objective, random_start=objective is not None,
            generator=torch.Generator().manual_seed(3),
        )(x, y)
        for model in pair(name)
    ]  # fmt: skip
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    assert not torch.equal(found[0], x)
