"""What `fit` measures beside training, and the best network that it keeps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from resumable import run
from torch import Tensor

from fastinterp import PGD, InputError, models
from fastinterp.training import IntTrainer, NormalTrainer
from fastinterp.training.folder import BEST
from fastinterp.training.validation import is_best


def accuracy(model: models.GapClassifier, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).double().mean())


def test_robust_accuracy_is_that_of_the_attack(make_data) -> None:
    x, y = make_data(80)
    val = x[:30], y[:30]
    for make in (NormalTrainer, partial(IntTrainer, eps=0.05, steps=2)):
        model = models.small(1, 4, seed=0)
        attack = PGD(model, eps=0.3, step_size=0.1, steps=5)
        row = make(model, lr=0.01).fit(
            (x, y), epochs=3, batch_size=8, val_data=val, val_attack=attack, progress=False
        )[-1]
        assert row["val_accuracy"] == accuracy(model, *val)
        assert row["val_robust_accuracy"] == accuracy(model, attack(*val), val[1])
        assert row["val_robust_accuracy"] < row["val_accuracy"]


def test_validation_changes_no_training(make_data) -> None:
    x, y = make_data(40)
    plain, watched = (IntTrainer(models.small(1, 4, seed=0), eps=0.1, steps=2) for _ in range(2))
    attack = PGD(watched.model, eps=0.1, step_size=0.05, steps=3)
    plain.fit((x, y), epochs=2, batch_size=8, progress=False)
    watched.fit((x, y), epochs=2, batch_size=8, val_data=(x, y), val_attack=attack, progress=False)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert watched.model.training == plain.model.training


def test_the_best_epochs_network_is_kept(tmp_path: Path, make_data) -> None:
    x, y = make_data(32)
    shown = iter((0.0, 0.3, 1.0))  # how far the images of each epoch are pushed out of shape

    def ever_stronger(x: Tensor, y: Tensor) -> Tensor:
        return x * (1 - next(shown))

    trainer = NormalTrainer(models.small(1, 4, seed=0), lr=0.01)
    history = trainer.fit(
        (x, y), 3, 8, val_data=(x, y), val_attack=ever_stronger, out=tmp_path, progress=False
    )
    scores = [row["val_robust_accuracy"] for row in history]
    best = scores.index(max(scores))
    assert len(set(scores)) > 1
    kept = models.load(tmp_path / BEST)
    assert models.info(tmp_path / BEST)["last_epoch"]["epoch"] == best + 1
    factor = (1.0, 0.7, 0.0)[best]
    assert accuracy(kept, x * factor, y) == scores[best]


@pytest.mark.parametrize(
    ("rows", "robust", "best"),
    [
        ([{"val_robust_accuracy": 0.5}], True, True),
        ([{"val_robust_accuracy": 0.5}, {"val_robust_accuracy": 0.5}], True, False),
        ([{"val_robust_accuracy": 0.5}, {"val_robust_accuracy": 0.6}], True, True),
        ([{"val_accuracy": 0.5}, {"val_accuracy": 0.6}], False, True),
        ([{"val_accuracy": 0.5}, {"val_accuracy": 0.6}], True, False),
        ([{}], False, False),
    ],
)
def test_what_is_best(rows: list, robust: bool, best: bool) -> None:
    assert is_best(rows, robust) is best


def test_a_run_that_was_stopped_keeps_the_same_best(tmp_path: Path) -> None:
    def attack(x: Tensor, y: Tensor) -> Tensor:
        return (x + 0.1).clamp(0, 1)

    generator = torch.Generator().manual_seed(1)
    val = torch.rand(20, 1, 8, 8, generator=generator), torch.arange(20) % 4
    options = {"val_data": val, "val_attack": attack}
    _, whole = run(tmp_path / "whole", **options)
    for epochs in (1, 3, 4):
        _, parts = run(tmp_path / "parts", epochs=epochs, **options)
    assert [row | {"seconds": 0} for row in parts] == [row | {"seconds": 0} for row in whole]
    first, second = (models.load(tmp_path / name / BEST) for name in ("whole", "parts"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bad_attacks_are_one_sentence(make_tiny, make_data) -> None:
    model, (x, y) = make_tiny(), make_data(16)
    trainer = NormalTrainer(model)
    for attack, val, sentence in (
        (3, (x, y), r"^val_attack must be a function of \(images, labels\), .* got 3\.$"),
        (PGD(make_tiny()), (x, y), r"^val_attack attacks another network than the one"),
        (PGD(model), None, r"^val_attack needs val_data"),
        (lambda x, y: None, (x, y), r"^val_attack must return images .* got NoneType\.$"),
        (lambda x, y: x[:, :, 1:], (x, y), r"^val_attack must return images .* \(16, 1, 7, 8\)\.$"),
    ):
        with pytest.raises(InputError, match=sentence):
            trainer.fit((x, y), 1, 8, val_data=val, val_attack=attack, progress=False)
