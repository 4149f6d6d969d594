"""Accuracy under the unforeseen attacks."""

from __future__ import annotations

import pytest
import torch

from fastinterp import InputError
from fastinterp.attacks import JPEG
from fastinterp.evaluation.corruptions import CORRUPTIONS, PUBLISHED_EPS, corruption_sweep


def test_every_attack_has_a_published_size() -> None:
    assert set(PUBLISHED_EPS) == set(CORRUPTIONS)


@pytest.mark.parametrize("attack", CORRUPTIONS)
def test_every_attack_gives_a_row(attack: str, make_problem) -> None:
    model, x, y = make_problem(6)
    (row,) = corruption_sweep(model, x, y, (y + 1) % 3, attack=attack, steps=[2], progress=False)
    assert (row["eps"], row["steps"], row["n"]) == (PUBLISHED_EPS[attack], 2, 6)
    assert row["targeted"] is True
    assert row["accuracy"] * 6 == pytest.approx(round(row["accuracy"] * 6))


def test_the_paper_attacks_towards_the_targets(make_problem) -> None:
    model, x, y = make_problem(12)
    targets = (y + 1) % 3
    (row,) = corruption_sweep(model, x, y, targets, attack="jpeg-linf", eps=[0.5], steps=[3],
                              seed=4, progress=False)  # fmt: skip
    x_adv = JPEG(model, 0.5, "linf", 3, targeted=True)(
        x, targets, generator=torch.Generator().manual_seed(4)
    )
    with torch.no_grad():
        right = model(x_adv).argmax(dim=1) == y
    assert row["accuracy"] == int(right.sum()) / 12


def test_batches_do_not_matter_and_best_only_lowers(make_problem) -> None:
    model, x, y = make_problem(11)
    words = {"attack": "jpeg-l2", "eps": [0.5, 1.0], "steps": [3], "progress": False}
    whole = corruption_sweep(model, x, y, (y + 1) % 3, **words)
    assert whole == corruption_sweep(model, x, y, (y + 1) % 3, batch_size=4, **words)
    best = corruption_sweep(model, x, y, (y + 1) % 3, protocol="best", **words)
    assert [row["targeted"] for row in best] == [False, False]
    for one, other in zip(best, whole, strict=True):
        assert one["accuracy"] <= other["accuracy"]


def test_bad_input(make_problem) -> None:
    model, x, y = make_problem(3)
    with pytest.raises(InputError, match="attack must be one of"):
        corruption_sweep(model, x, y, y, attack="hail")
    with pytest.raises(InputError, match="protocol must be one of"):
        corruption_sweep(model, x, y, y, attack="fog", protocol="worst")
    with pytest.raises(InputError, match="targets must lie in"):
        corruption_sweep(model, x, y, y + 3, attack="fog")
    with pytest.raises(InputError, match="sets its own steps"):
        corruption_sweep(model, x, y, y, attack="jpeg-l1", step_size=0.1, steps=[1])
