"""Accuracy under the unforeseen attacks."""

from __future__ import annotations

import pytest
import torch

from fastinterp import InputError, models
from fastinterp.attacks import JPEG
from fastinterp.evaluation.corruptions import (
    CORRUPTIONS,
    PUBLISHED_EPS,
    corruption_sweep,
    published_eps,
)


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
    with pytest.raises(InputError, match="no attack"):
        corruption_sweep(model, x, y, y, attack="hail")
    with pytest.raises(InputError, match="protocol must be one of"):
        corruption_sweep(model, x, y, y, attack="fog", protocol="worst")
    with pytest.raises(InputError, match="eps must be a number or a list"):
        corruption_sweep(model, x, y, y, attack="fog", eps=object())
    with pytest.raises(InputError, match="steps must be a whole number"):
        corruption_sweep(model, x, y, y, attack="fog", steps=1.5)
    with pytest.raises(InputError, match="at least one"):
        corruption_sweep(model, x, y, y, attack="fog", steps=[])
    with pytest.raises(InputError, match=r"\[N, C, H, W\]"):
        corruption_sweep(model, x[:, 0], y, y, attack="fog")
    with pytest.raises(InputError, match=r"must give logits \[N, C\]"):
        corruption_sweep(torch.nn.Identity(), x, y, y, attack="fog")
    with pytest.raises(InputError, match="targets must lie in"):
        corruption_sweep(model, x, y, y + 3, attack="fog")
    with pytest.raises(InputError, match="sets its own steps"):
        corruption_sweep(model, x, y, y, attack="jpeg-l1", step_size=0.1, steps=[1])


def test_large_images_have_sizes_of_their_own() -> None:
    """jpeg-linf has one for ImageNet; what is published for 32 pixels is never taken at 224."""
    small, large = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)
    assert (published_eps("jpeg-linf", small), published_eps("jpeg-linf", large)) == (0.25, 0.062)
    for attack in set(CORRUPTIONS) - {"jpeg-linf"}:
        assert published_eps(attack, small) == PUBLISHED_EPS[attack]
        with pytest.raises(InputError, match=f"eps of {attack} is for images of 28 or 32.*224x224"):
            published_eps(attack, large)
    with pytest.raises(InputError, match=r"give eps \(ImageNet, linf: 0.062\)"):
        JPEG(models.small(3, seed=0), steps=1)(large, torch.zeros(1, dtype=torch.int64))
