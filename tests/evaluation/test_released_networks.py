"""Tables 3 and 4 of the paper, from the networks that its authors released: the quick cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastinterp import data, models
from fastinterp.evaluation import paper_selection, sweep

ONE_IMAGE = 1 / 200 + 1e-9  # what another machine's rounding may move
CLEAN = {"int": 0.935, "normal": 1.000, "adv": 0.980}
TABLE_4 = {"int": (0.935, 0.910), "normal": (0.990, 0.070), "adv": (0.975, 0.945)}  # 1, 10 steps


@pytest.mark.parametrize("method", TABLE_4)
def test_mnist_small_at_eps_0_3(method: str, shared: Path) -> None:
    test = data.load("mnist", shared / "data")
    indices, _ = paper_selection(len(test))
    model = models.load(shared / "networks" / f"mnist_smallgap_{method}_100.pkl")
    rows = sweep(model, test.float(indices), test.labels[indices], eps=[0, 0.3], steps=[1, 10])
    found = {(row["eps"], row["steps"]): row["accuracy"] for row in rows}
    assert found[0.0, 1] == pytest.approx(CLEAN[method], abs=ONE_IMAGE)
    for steps, expected in zip((1, 10), TABLE_4[method], strict=True):
        assert found[0.3, steps] == pytest.approx(expected, abs=ONE_IMAGE)


def test_a_cell_of_table_3(shared: Path) -> None:
    """Int at 0.3 under all 200 steps, as the table is measured."""
    test = data.load("mnist", shared / "data")
    indices, _ = paper_selection(len(test))
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl")
    (row,) = sweep(model, test.float(indices), test.labels[indices], eps=[0.3], steps=[200])
    assert row["accuracy"] == pytest.approx(0.790, abs=ONE_IMAGE)


def test_cifar_small_at_8_255(shared: Path) -> None:
    """Table A3's CIFAR-10 block, which labels its rows rightly: Int, clean and at 8/255."""
    test = data.load("cifar10", shared / "data")
    indices, _ = paper_selection(len(test))
    model = models.load(shared / "networks" / "cifar_smallgap_int_200.pkl")
    rows = sweep(model, test.float(indices), test.labels[indices], eps=[0, 8 / 255], steps=[10])
    for row, expected in zip(rows, (0.525, 0.235), strict=True):
        assert row["accuracy"] == pytest.approx(expected, abs=ONE_IMAGE)


def test_best_finds_more_than_the_paper_on_a_real_network(shared: Path) -> None:
    test = data.load("mnist", shared / "data")
    indices, _ = paper_selection(len(test), 60)
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl")
    x, y = test.float(indices), test.labels[indices]
    settings = {"eps": [0, 0.1, 0.2, 0.3], "steps": [10]}
    paper = [row["accuracy"] for row in sweep(model, x, y, **settings)]
    best = [row["accuracy"] for row in sweep(model, x, y, protocol="best", **settings)]
    assert all(b <= p for b, p in zip(best, paper, strict=True))
    assert best[-1] < paper[-1]
    assert best == sorted(best, reverse=True)
