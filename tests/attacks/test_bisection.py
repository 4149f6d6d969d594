"""The search for a number per image, against thresholds that are known."""

from __future__ import annotations

import pytest
import torch

from fastinterp import InputError
from fastinterp.attacks import Bisection


def one_by_one(threshold: float, search: Bisection, wanted: str) -> tuple[float, list[float]]:
    """The search for a single number, in plain Python."""
    low, high, value, tried = search.lower, search.upper, search.start, []
    for _ in range(search.rounds):
        if high - low <= search.tolerance:
            break
        tried.append(value)
        success = value >= threshold if wanted == "smallest" else value <= threshold
        if success == (wanted == "largest"):
            low, value = value, min(2 * value, (value + high) / 2)
        else:
            high, value = value, (low + value) / 2
    return (high if wanted == "smallest" else low), tried


@pytest.mark.parametrize("wanted", ["smallest", "largest"])
@pytest.mark.parametrize(
    "search", [Bisection(0.05), Bisection(5e-5), Bisection(0.3, 0.1, 2.0, 25, 1e-3)]
)
def test_many_at_once_are_like_one_by_one(wanted, search) -> None:
    thresholds = torch.tensor([0.0, 1e-4, 0.05, 0.11, 0.4, 0.999, 3.0], dtype=torch.float64)
    tried: list[list[float]] = [[] for _ in thresholds]

    def succeeds(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        for row, value in zip(rows.tolist(), values.tolist(), strict=True):
            tried[row].append(value)
        limit = thresholds[rows]
        return values >= limit if wanted == "smallest" else values <= limit

    value, found = search.search(succeeds, thresholds, wanted)
    expected = [one_by_one(limit, search, wanted) for limit in thresholds.tolist()]
    assert tried == [values for _, values in expected]
    assert value.tolist() == [answer for answer, _ in expected]
    best = max if wanted == "smallest" else min
    reached = [best(limit, *row) != limit or limit in row
               for limit, row in zip(thresholds.tolist(), tried, strict=True)]  # fmt: skip
    assert found.tolist() == reached
    assert (~found).any() and found.any()


def test_small_answers_are_found_to_a_small_error() -> None:
    thresholds = torch.logspace(-5, -1.7, 30, dtype=torch.float64)
    search = Bisection(5e-5, rounds=20)
    value, found = search.search(lambda rows, v: v <= thresholds[rows], thresholds, "largest")
    assert found.all()
    assert ((thresholds - value) / thresholds).max() < 0.01


def test_settled_images_leave() -> None:
    sizes = []

    def succeeds(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return values >= torch.tensor([0.01, 0.9])[rows]

    Bisection(0.05, rounds=12, tolerance=0.04).search(succeeds, torch.zeros(2), "smallest")
    assert sizes[0] == 2 and sizes[-1] == 1 and len(sizes) < 12
    value, found = Bisection(0.05).search(succeeds, torch.zeros(0, 3), "smallest")
    assert value.shape == found.shape == (0,)


@pytest.mark.parametrize(
    "settings",
    [
        *((0.0,), (1.0,), (0.5, 0.6), (0.5, -1.0), (0.5, 0, 1, 0), (0.5, 0, 1, 5, -1.0)),
        *(("a",), (0.5, 0, 1, 2.5), (0.5, 0, 1, 5, None)),
    ],
)
def test_refused(settings) -> None:
    with pytest.raises(InputError):
        Bisection(*settings)
