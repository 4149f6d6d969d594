"""The paper's attack cannot move an image of which the network is too sure; `best` can."""

from __future__ import annotations

import pytest
import torch

from fastinterp import PGD, models
from fastinterp.attacks import CrossEntropy
from fastinterp.evaluation import sweep
from fastinterp.evaluation.ensembles import FlushedCrossEntropy


@pytest.fixture
def sure() -> tuple[models.GapClassifier, torch.Tensor, torch.Tensor]:
    """A network, two images and their classes; the first class leads by 95 and by 20."""
    model = models.small(num_classes=2, seed=0)
    x = torch.rand(2, 1, 28, 28) * 0.5 + 0.25
    with torch.no_grad():
        features = model.features(x).mean((2, 3))
        margins = torch.tensor([95.0, 20.0])
        # The least change of one row of the classifier that gives the wanted margins.
        row = torch.linalg.lstsq(features, margins[:, None]).solution[:, 0]
        model.weight.copy_(torch.stack([row, -row]) / 2)
        logits = model(x)
        torch.testing.assert_close(logits[:, 0] - logits[:, 1], margins, rtol=1e-3, atol=1e-3)
    return model, x, torch.zeros(2, dtype=torch.int64)


def moved(objective, sure) -> list[bool]:
    model, x, y = sure
    x_adv = PGD(model, 0.1, 0.01, 1, objective=objective)(x, y)
    return [bool(change) for change in (x_adv - x).flatten(1).any(dim=1)]


def test_an_image_too_sure_is_not_moved(sure) -> None:
    assert moved(CrossEntropy(), sure) == [True, True]
    assert moved(FlushedCrossEntropy(), sure) == [False, True]


def test_otherwise_it_is_cross_entropy(sure) -> None:
    model, x, y = sure
    x, y = x[1:], y[1:]
    found = [
        PGD(model, 0.1, 0.01, 3, objective=o)(x, y) for o in (CrossEntropy(), FlushedCrossEntropy())
    ]
    assert torch.equal(*found)


def test_best_is_not_stopped_by_it(sure) -> None:
    model, x, y = sure
    paper, best = (
        sweep(
            model,
            x[:1],
            y[:1],
            eps=[0.25],
            steps=[20],
            step_size=size,
            protocol=protocol,
            progress=False,
        )
        for protocol, size in (("paper", 0.05), ("best", None))
    )
    assert paper[0]["accuracy"] == 1
    assert best[0]["accuracy"] == 0
