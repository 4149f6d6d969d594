"""Figure 2: discrepancies that are left when an attack hides from them."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from fastinterp import models
from fastinterp.interpreters import CAM
from fastinterp.reproduce import FIGURES, reproduce_figure
from fastinterp.reproduce.figures import fig2
from fastinterp.reproduce.figures.draw_fig2 import draw
from fastinterp.reproduce.results import Results

TRUE, TARGET = 3, 8
SETS = {"1-class": [TRUE], "2-class": [TRUE, TARGET], "all-class": list(range(10))}
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig2, "PENALTIES", (1.0, 1.6))


def run(networks: Path | None, out: Path) -> Rows:
    return reproduce_figure(FIGURES["fig2"], networks, None, out, only=["digits"], progress=False)


def read(out: Path) -> Results:
    with np.load(out.with_suffix(".npz")) as arrays:
        return Results(json.loads(out.with_suffix(".json").read_text())["rows"], dict(arrays))


def panel(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["panel"] == name]


@pytest.fixture(scope="module")
def measured(digits_networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    out = tmp_path_factory.mktemp("fig2") / "fig2.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig2, "PENALTIES", (1.0, 1.6))
        rows = run(digits_networks, out)
    assert out.read_bytes().startswith(b"\x89PNG")
    found = read(out)
    assert found.rows == rows
    return found


def test_a_row_for_each_point_and_each_map(measured: Results) -> None:
    for name, norm in (("a", "l1"), ("b", "l2")):
        rows = panel(measured.rows, name)
        assert {row["norm"] for row in rows} == {norm}
        assert [(row["classes"], row["penalty"]) for row in rows] == [
            (classes, penalty) for classes in SETS for penalty in (1.0, 1.6)
        ]
        smallest = rows[0]["eps"]
        assert 0 < smallest < 1
        assert [row["eps"] for row in rows] == pytest.approx([smallest, 1.6 * smallest] * 3)
        assert any(row["success"] for row in rows)
        for classes in SETS:
            own = [row for row in rows if row["classes"] == classes and row["success"]]
            lowest = list(accumulate((row["discrepancy"] for row in own), min))
            assert [row["lowest"] for row in own] == lowest
        failed = [row["lowest"] for row in rows if not row["success"]]
        assert failed == [None] * len(failed)
    assert [(row["attack"], row["classes"], row["class"]) for row in panel(measured.rows, "c")] == [
        (attack, classes, role)
        for attack, classes in (
            ("original", None), ("pgd", None), *(("isa", each) for each in SETS),
        )
        for role in ("true", "target")
    ]  # fmt: skip


def test_discrepancies_are_in_units_of_the_clean_maps_range(
    measured: Results, digits_networks: Path
) -> None:
    model = models.load(digits_networks / "digits-small-normal" / "model.safetensors").eval()
    x = torch.from_numpy(measured.arrays["original"])[None]
    for classes, wanted in SETS.items():
        last = next(
            row
            for row in panel(measured.rows, "a")
            if row["classes"] == classes and row["penalty"] == 1.6
        )
        x_adv = torch.from_numpy(measured.arrays[classes])[None]
        assert (x_adv - x).abs().max() <= last["eps"] + 1e-6
        with torch.no_grad():
            clean, moved = (CAM(model)(each, wanted)[0].flatten(1) for each in (x, x_adv))
            assert (int(model(x_adv).argmax()) == TARGET) == last["success"]
        spread = clean.amax(dim=1) - clean.amin(dim=1)
        expected = ((moved - clean).abs().sum(dim=1) / spread).mean()
        assert last["discrepancy"] == pytest.approx(float(expected), rel=1e-3)


def test_panel_c_holds_kendalls_tau_against_the_clean_maps(
    measured: Results, digits_networks: Path
) -> None:
    model = models.load(digits_networks / "digits-small-normal" / "model.safetensors").eval()
    clean = measured.arrays["maps-original"]
    for row in panel(measured.rows, "c"):
        name, i = row["classes"] or row["attack"], int(row["class"] == "target")
        tau = kendalltau(clean[i], measured.arrays[f"maps-{name}"][i]).statistic
        assert row["kendall_tau"] == pytest.approx(tau)
        with torch.no_grad():
            p = model(torch.from_numpy(measured.arrays[name])[None]).softmax(dim=1)[0]
        assert row["probability"] == pytest.approx(float(p[(TRUE, TARGET)[i]]), abs=1e-5)
    assert [row["kendall_tau"] for row in panel(measured.rows, "c")[:2]] == pytest.approx([1, 1])


def test_a_stopped_run_goes_on(
    digits_networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fig2, "PENALTIES", (1.6,))
    real = fig2._curve
    made: list[tuple[str, str]] = []

    def until_the_third(subject: Any, smallest: Any, norm: str, classes: str) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append((norm, classes))
        return real(subject, smallest, norm, classes)

    monkeypatch.setattr(fig2, "_curve", until_the_third)
    out = tmp_path / "fig2.json"
    for _ in range(2):
        made.clear()
        with pytest.raises(KeyboardInterrupt):
            run(digits_networks, out)
    assert made == [("l1", "all-class"), ("l2", "1-class")], "the first two were there"
    made.clear()
    rows = run(digits_networks, out)
    assert made == [("l2", "2-class"), ("l2", "all-class")]
    assert [row["classes"] for row in panel(rows, "a") + panel(rows, "b")] == [*SETS, *SETS]
    (tmp_path / "fig2.png").unlink()
    assert run(None, out) == rows, "drawn again without networks"
    assert (tmp_path / "fig2.png").is_file()


def test_the_picture_has_two_panels_of_curves_and_five_examples(measured: Results) -> None:
    axes = draw(measured).axes
    assert len(axes) == 2 + 5 * 3 + 1
    for one, name in zip(axes, ("a", "b"), strict=False):
        assert one.get_title(loc="left").startswith(name)
        assert one.get_xlabel()
        assert "discrepancy" in one.get_ylabel()
        assert [text.get_text() for text in one.get_legend().get_texts()] == list(SETS)
        for line, classes in zip(one.lines, SETS, strict=True):
            own = [row for row in panel(measured.rows, name) if row["classes"] == classes]
            points = [(row["eps"], row["lowest"]) for row in own if row["success"]]
            assert list(zip(*line.get_data(), strict=True)) == points
    assert axes[2].get_ylabel() == "image"
    taus = [axes[i].get_xlabel() for i in (6, 7)]
    expected = panel(measured.rows, "c")[2:4]
    assert taus == [f"$\\tau$ = {row['kendall_tau']:.3f}" for row in expected]


def test_curves_leave_out_attacks_that_fail(measured: Results) -> None:
    rows = [
        {**row, "success": False, "lowest": None}
        if row["classes"] == "2-class" and row["panel"] == "a"
        else row
        for row in measured.rows
    ]
    first = draw(Results(rows, measured.arrays)).axes[0]
    assert [len(line.get_xdata()) for line in first.lines] == [2, 0, 2]
