"""The paper's figures: measured from networks at hand, kept as files, drawn again from those."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastinterp import InputError, data, models, reproduce, training
from fastinterp.evaluation import paper_selection, sweep
from fastinterp.reproduce import FIGURES, Network, PaperFigure
from fastinterp.reproduce.figures import Setting, under_pgd
from fastinterp.reproduce.figures.fig3 import METHODS
from fastinterp.reproduce.figures.fig3 import draw as draw_fig3
from fastinterp.reproduce.figures.figa1 import draw as draw_figa1
from fastinterp.reproduce.results import Results
from fastinterp.training import METHODS as ALL_METHODS
from fastinterp.training import Recipe, StepTime

N = 3
COST = {"ig-norm": 4.0, "int": 1.5, "adv": 1.0, "normal": 0.1}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits stand in for MNIST, and two steps for two hundred."""
    real = data.load
    monkeypatch.setattr(data, "load", lambda name, *rest: real("digits", None, *rest[1:]))
    monkeypatch.setattr(under_pgd, "STEPS", 2)


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """Three of fig3's networks, of which one is also figA1's, and two with a gamma of their own."""
    folder = tmp_path / "networks"
    for seed, run in enumerate(
        (
            "mnist-small-normal",
            "mnist-small-int",
            "mnist-small-ig-norm",
            "mnist-small-int-gamma-0.1",
            "mnist-quick-int-gamma-0.03",
        )
    ):
        info = {"recipe": {"name": run.partition("-gamma")[0]}}
        models.save(models.small(seed=seed), folder / run / "model.safetensors", info=info)
    return folder


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training iterations that take what `COST` says."""

    def time_recipes(recipes: Sequence[Recipe], *_: Any, **__: Any) -> list[StepTime]:
        return [StepTime(COST[recipe.method], 10, 5) for recipe in recipes]

    monkeypatch.setattr(training, "time_recipes", time_recipes)


def no_times(*_: Any, **__: Any) -> list[StepTime]:
    raise KeyboardInterrupt


def fig3(networks: Path | None, out: Path, **settings: Any) -> list[dict[str, Any]]:
    settings = {"only": list(COST), "n": N, "progress": False} | settings
    return reproduce.reproduce_figure(FIGURES["fig3"], networks, None, out, **settings)


def test_fig3_shows_cost_and_accuracy(networks: Path, tmp_path: Path) -> None:
    assert set(METHODS) <= set(ALL_METHODS)
    rows = fig3(networks, tmp_path / "fig3.png")
    assert [(row["method"], row["eps"]) for row in rows] == [
        (method, eps) for method in COST for eps in (0.3, 0.4)
    ], "by falling cost"
    test = data.load("digits")
    chosen, _ = paper_selection(len(test), N)
    model = models.load(networks / "mnist-small-int" / "model.safetensors")
    expected = sweep(
        model, test.float(chosen), test.labels[chosen], eps=(0.3, 0.4), steps=(2,), progress=False
    )
    ours = [row for row in rows if row["method"] == "int"]
    assert [row["accuracy"] for row in ours] == [row["accuracy"] for row in expected]
    assert [row["paper"] for row in ours] == [0.79, 0.14]
    assert {row["seconds_per_epoch"] for row in ours} == {15.0}
    assert [row["accuracy"] for row in rows if row["method"] == "adv"] == [None, None]
    kept = json.loads((tmp_path / "fig3.json").read_text())
    assert (kept["figure"], kept["n"], kept["rows"]) == ("fig3", N, rows)
    assert (tmp_path / "fig3.png").read_bytes().startswith(b"\x89PNG")

    time, accuracy = draw_fig3(Results(rows)).axes
    assert [label.get_text() for label in time.get_xticklabels()] == [
        "IG-Norm", "Int", "Adv", "Normal",
    ]  # fmt: skip
    assert [bar.get_height() for bar in time.patches] == [40.0, 15.0, 10.0, 1.0]
    assert "seconds" in time.get_ylabel()
    assert "accuracy" in accuracy.get_ylabel()
    drawn = [line.get_ydata()[1] for line in accuracy.lines]
    assert drawn == [row["accuracy"] for row in ours]


def test_a_stopped_figure_goes_on(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "fig3.json"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "time_recipes", no_times)
        fig3(networks, out)
    kept = json.loads(out.read_text())
    assert len(kept["rows"]) == 8
    next(row for row in kept["rows"] if row["method"] == "int")["accuracy"] = 0.123
    out.write_text(json.dumps(kept))
    rows = fig3(networks, out)
    assert 0.123 in [row["accuracy"] for row in rows], "only a row taken from the file has this"
    # Drawn again without networks, data or a clock.
    (tmp_path / "fig3.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "time_recipes", no_times)
        assert fig3(None, out) == rows
    assert (tmp_path / "fig3.png").is_file()
    # Another network under that name, or another n, is measured anew.
    (networks / "mnist-small-int").rename(networks / "mnist-quick-int")
    assert 0.123 not in [row["accuracy"] for row in fig3(networks, out)]
    assert {row["n"] for row in fig3(networks, out, n=2)} == {2}


def figa1(networks: Path | None, out: Path, **settings: Any) -> list[dict[str, Any]]:
    return reproduce.reproduce_figure(
        FIGURES["figA1"], networks, None, out, **({"n": N, "progress": False} | settings)
    )


def test_figa1_runs_over_gamma(networks: Path, tmp_path: Path) -> None:
    rows = figa1(networks, tmp_path / "figA1.json")
    assert [(row["gamma"], row["eps"]) for row in rows] == [
        (gamma, eps) for gamma in (0.0, 0.01, 0.1) for eps in (0.0, 0.1, 0.3)
    ]
    assert {row["recipe"] for row in rows} == {"mnist-small-normal", "mnist-small-int"}
    assert rows[0]["network"] == "mnist-small-normal/model.safetensors"
    (axes,) = draw_figa1(Results(rows)).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n(Normal)", "0.01", "0.1"]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_ydata()) for line in points] == [
        [row["accuracy"] for row in rows if row["eps"] == eps] for eps in (0.0, 0.1, 0.3)
    ]


def test_figa1_never_mixes_recipes(networks: Path, tmp_path: Path) -> None:
    for run in ("int-gamma-0.1", "int-gamma-0.001", "normal"):
        models.save(models.small(seed=7), networks / f"mnist-quick-{run}" / "model.safetensors")
    rows = figa1(networks, tmp_path / "figA1.json")
    assert [row["gamma"] for row in rows[::3]] == [0.0, 0.001, 0.03, 0.1]
    assert all(row["network"].startswith("mnist-quick-") for row in rows)


def test_figa1_without_its_networks_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="or train them with --train"):
        figa1(tmp_path, tmp_path / "figA1.json")


def test_arrays_lie_beside_the_rows(tmp_path: Path) -> None:
    calls = []
    row = {"dataset": "mnist", "model": "small", "method": "int", "a": 1}

    def measure(setting: Setting) -> Results:
        if setting.known.rows:
            return setting.known
        calls.append(setting.n)
        return Results([row], {"maps": np.arange(6.0).reshape(2, 3)})

    def draw(measured: Results) -> Any:
        from matplotlib.figure import Figure as Picture

        assert measured.arrays["maps"].shape == (2, 3)
        return Picture()

    one = (Network("mnist", "small", "int"),)
    figure = PaperFigure("figX", "a title", "nothing", 1, one, measure, draw, ("a",), n=4)
    out = tmp_path / "figX.svg"
    for _ in range(2):
        assert reproduce.reproduce_figure(figure, None, None, out) == [row]
    assert calls == [4]
    assert b"<svg" in out.read_bytes()
    assert json.loads((tmp_path / "figX.json").read_text())["arrays"] == "figX.npz"
    (tmp_path / "figX.npz").write_bytes(b"damaged")
    reproduce.reproduce_figure(figure, None, None, out)
    assert calls == [4, 4], "without its arrays a figure is measured anew"


def test_figures_refuse_what_does_not_fit(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    for content in ('{"mine": 1}', "no json", '{"figure": "fig1", "n": 3, "rows": []}'):
        out.write_text(content)
        with pytest.raises(InputError, match="something else than fig3"):
            fig3(networks, out)
        assert out.read_text() == content
    with pytest.raises(InputError, match="must end in"):
        fig3(networks, tmp_path / "fig3.txt")
    with pytest.raises(InputError, match="nothing to do with cifar10"):
        fig3(networks, tmp_path / "fig3.png", only=["cifar10"])
    setting = Setting(networks, None, torch.device("cpu"), 1)
    with pytest.raises(InputError, match="There is no network mnist-small-trades"):
        setting.load(Network("mnist", "small", "trades"))


@pytest.mark.parametrize("name", reproduce.list_entries())
def test_every_entry_says_what_it_needs_and_how_long_it_takes(name: str) -> None:
    entry = reproduce.load_entry(name)
    assert entry.name == name
    assert entry.title
    assert entry.needs
    assert entry.minutes > 0
