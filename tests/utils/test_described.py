"""Attacks, interpreters and trainers print as what they were made of."""

from __future__ import annotations

import torch

from fastinterp import PGD, IntLoss, IntTrainer, interpreters, models


def test_settings_are_seen_and_tensors_are_not() -> None:
    model = models.small(seed=0)
    attack = PGD(model, eps=0.1, step_size=0.05, steps=3, norm="l2", generator=torch.Generator())
    assert repr(attack) == (
        "PGD(model=LayeredClassifier, threat=L2Ball(eps=0.1, step_size=0.05, lower=0.0, "
        "upper=1.0), steps=3, random_start=False, targeted=False, restarts=1, "
        "objective=CrossEntropy(sign=1, smoothing=0), keep='last', lower=0, upper=1)"
    )
    explainer = interpreters.IntegratedGradients(model, baseline=torch.zeros(1, 28, 28))
    assert "baseline=tensor[1, 28, 28], " in repr(explainer)
    trainer = IntTrainer(model, eps=0.125, steps=7)
    assert repr(trainer).startswith("IntTrainer(model=LayeredClassifier, method='int', gamma=0.01")
    assert "eps=0.125, steps=7" in repr(trainer)
    assert "eps=0.125, steps=7" in repr(IntLoss(eps=0.125, steps=7))
