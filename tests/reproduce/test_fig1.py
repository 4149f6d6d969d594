"""Figure 1: one image before and after an attack, and its maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from fastinterp import InputError, data, models
from fastinterp.attacks import PGD
from fastinterp.evaluation.pictures import overlay
from fastinterp.interpreters import CAM, GradCAMPlusPlus, IntegratedGradients
from fastinterp.reproduce import FIGURES, reproduce_figure
from fastinterp.reproduce.figures import fig1
from fastinterp.reproduce.figures.fig1 import draw, shown
from fastinterp.reproduce.results import Results

TRUE, TARGET = 3, 8


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig1, "IG_STEPS", 4)


def run(networks: Path | None, out: Path, only: str = "digits") -> list[dict[str, Any]]:
    return reproduce_figure(FIGURES["fig1"], networks, None, out, only=[only], progress=False)


def read(out: Path) -> Results:
    with np.load(out.with_suffix(".npz")) as arrays:
        return Results(json.loads(out.with_suffix(".json").read_text())["rows"], dict(arrays))


def test_the_image_is_the_first_that_the_attack_moves_to_its_target(
    digits_networks: Path, tmp_path: Path
) -> None:
    rows = run(digits_networks, tmp_path / "fig1.png")
    model = models.load(digits_networks / "digits-small-normal" / "model.safetensors").eval()
    test = data.load("digits")
    of_class = (test.labels == TRUE).nonzero().squeeze(1)
    x = test.float(of_class)
    x_adv = PGD(model, 0.2, 0.1, 10, targeted=True)(x, torch.full_like(of_class, TARGET))
    with torch.no_grad():
        right = model(x).argmax(dim=1) == TRUE
        moved = model(x_adv).argmax(dim=1) == TARGET
    first = int((right & moved).nonzero()[0])
    assert {row["image"] for row in rows} == {int(of_class[first])}
    arrays = read(tmp_path / "fig1.png").arrays
    assert np.array_equal(arrays["x"], x[first].numpy())
    assert np.allclose(arrays["x_adv"], x_adv[first].numpy(), atol=1e-6)


def test_rows_hold_kendalls_tau_of_every_pair_of_maps(
    digits_networks: Path, tmp_path: Path
) -> None:
    rows = run(digits_networks, tmp_path / "fig1.json")
    model = models.load(digits_networks / "digits-small-normal" / "model.safetensors").eval()
    arrays = read(tmp_path / "fig1.json").arrays
    both = torch.from_numpy(np.stack([arrays["x"], arrays["x_adv"]]))
    expected = []
    with torch.no_grad():
        p = model(both).softmax(dim=1)
        kinds = (CAM(model), GradCAMPlusPlus(model), IntegratedGradients(model, 4))
        for name, interpreter in zip(("cam", "gradcam++", "ig"), kinds, strict=True):
            maps = interpreter(both, [TRUE, TARGET]).flatten(2).numpy()
            assert np.allclose(arrays[name].reshape(maps.shape), maps, atol=1e-6)
            for i, role in enumerate(("true", "target")):
                stored = arrays[name].reshape(maps.shape)[:, i]
                expected.append((name, role, kendalltau(*stored).statistic))
    assert [(row["interpreter"], row["class"]) for row in rows] == [e[:2] for e in expected]
    assert [row["kendall_tau"] for row in rows] == pytest.approx([e[2] for e in expected])
    assert rows[0]["probability"] == pytest.approx(float(p[0, TRUE]), abs=1e-5)
    assert rows[1]["probability_adv"] == pytest.approx(float(p[1, TARGET]), abs=1e-5)
    assert {row["paper"] for row in rows} == {None}, "the paper's image is another one"


def test_maps_that_are_there_are_not_measured_again(digits_networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "fig1.json"
    run(digits_networks, out)
    found = read(out)
    changed = found.arrays["ig"][:, :, :, ::-1]
    np.savez(out.with_suffix(".npz"), **(found.arrays | {"ig": changed}))
    run(digits_networks, out)
    assert np.array_equal(read(out).arrays["ig"], changed)
    # Drawn again without networks; not as a figure of other data.
    (tmp_path / "fig1.png").unlink()
    assert run(None, out) == read(out).rows
    assert (tmp_path / "fig1.png").is_file()
    with pytest.raises(InputError, match="no network mnist-small-normal"):
        run(None, out, "mnist")
    # Another network is measured anew.
    other = tmp_path / "networks"
    source = digits_networks / "digits-small-normal" / "model.safetensors"
    other.mkdir()
    (other / "digits-small-normal.safetensors").write_bytes(source.read_bytes())
    run(other, out)
    assert not np.array_equal(read(out).arrays["ig"], changed)


def test_the_picture_shows_maps_on_the_scale_of_their_column(
    digits_networks: Path, tmp_path: Path
) -> None:
    rows = run(digits_networks, tmp_path / "fig1.png")
    measured = read(tmp_path / "fig1.png")
    panels = draw(measured).axes
    assert len(panels) == 2 + 3 * 4 + 1
    assert [panel.get_ylabel() for panel in panels[:2]] == ["original $x$", "adversarial $x'$"]
    assert (
        panels[0].get_title() == f"3: {rows[0]['probability']:.2f}, 8: {rows[1]['probability']:.2f}"
    )
    taus = [panel.get_xlabel() for panel in panels[3:14:2]]
    assert taus == [f"$\\tau$ = {row['kendall_tau']:.3f}" for row in rows]
    column = torch.from_numpy(measured.arrays["cam"])[:, 1]
    for panel, name, values in zip(panels[4:6], ("x", "x_adv"), column, strict=True):
        image = torch.from_numpy(measured.arrays[name])
        expected = overlay(image, values / column.abs().max())
        assert np.allclose(panel.images[0].get_array(), expected)


def test_maps_of_pixels_are_summed_over_channels_and_patches() -> None:
    maps = torch.rand(2, 2, 3, 224, 224)
    small = shown(maps)
    assert small.shape == (2, 2, 28, 28)
    assert small[1, 0, 2, 5] == pytest.approx(float(maps[1, 0, :, 16:24, 40:48].sum()), rel=1e-4)
    cams = torch.rand(2, 2, 56, 56)
    assert shown(cams) is cams


def test_a_network_that_no_image_will_do_for(tmp_path: Path) -> None:
    model = models.small(seed=0)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0] = 1e-6  # class 0 or class 1, whatever the image
    models.save(model, tmp_path / "digits-small-normal.safetensors")
    with pytest.raises(InputError, match="no 3 that digits-small-normal classifies"):
        run(tmp_path, tmp_path / "fig1.png")
    with pytest.raises(InputError, match="nothing to do with table1"):
        run(tmp_path, tmp_path / "fig1.png", "table1")
