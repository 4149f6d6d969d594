"""Explanations and the pictures that show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastinterp._utils.errors import InputError
from fastinterp.attacks import PGD
from fastinterp.evaluation import explain, sweep
from fastinterp.evaluation.comparison import Contender, comparison_figure
from fastinterp.evaluation.explanations import runner_up
from fastinterp.evaluation.pictures import explanation_figure, overlay, save_picture
from fastinterp.interpreters import CAM


def test_explanations_are_the_maps_of_two_classes_at_both_images(make_problem) -> None:
    model, x, y = make_problem(5)
    found = explain(model, x, y, eps=0.1, steps=6, step_size=0.03)
    with torch.no_grad():
        target = model(x).scatter(1, y[:, None], -torch.inf).argmax(dim=1)
        both = torch.stack([y, target], dim=1)
        x_adv = PGD(model, 0.1, 0.03, 6, targeted=True)(x, target)
        assert torch.equal(found.targets, target)
        assert torch.equal(found.attacked, x_adv)
        assert torch.allclose(found.maps, CAM(model)(x, both))
        assert torch.allclose(found.maps_adv, CAM(model)(x_adv, both))
        assert torch.allclose(found.probabilities, model(x).softmax(dim=1))
        assert torch.allclose(found.probabilities_adv, model(x_adv).softmax(dim=1))
    assert not found.maps.requires_grad
    p, p_adv = (
        p.gather(1, target[:, None]) for p in (found.probabilities, found.probabilities_adv)
    )
    assert (p_adv > p).all()  # the attack went towards the target


def test_the_runner_up_is_never_the_true_class() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert runner_up(logits, torch.tensor([0, 2])).tolist() == [1, 0]


def test_a_target_that_is_the_true_class_is_refused(make_problem) -> None:
    model, x, y = make_problem(4)
    with pytest.raises(InputError, match="another class"):
        explain(model, x, y, eps=0.1, targets=y)


def test_labels_are_checked_before_they_are_used(make_problem) -> None:
    model, x, y = make_problem(4)
    with pytest.raises(InputError, match="labels must lie in"):
        explain(model, x, y + 10, eps=0.1)
    with pytest.raises(InputError, match=r"labels must be an integer tensor .* got list"):
        explain(model, x, y.tolist(), eps=0.1)
    with pytest.raises(InputError, match="targets must be an integer tensor"):
        explain(model, x, y, eps=0.1, targets=(y + 1.0) % 3)
    with pytest.raises(InputError, match="targets must lie in"):
        explain(model, x, y, eps=0.1, targets=y + 3)


@pytest.mark.parametrize("count", [1, 2])
def test_the_scale_of_a_picture_fits_on_it(count: int, make_problem) -> None:
    model, x, y = make_problem(count)
    figure = explanation_figure(explain(model, x, y, eps=0.1, steps=1))
    figure.canvas.draw()
    label = figure.axes[-1].yaxis.label.get_window_extent()
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.y1
    assert label.x1 <= figure.bbox.x1


def test_titles_fit_over_their_panels(make_problem) -> None:
    model, x, y = make_problem(2, 3)
    found = explain(model, x, y, eps=0.1, steps=1)
    figure = explanation_figure(found, ["automobile", "a name so long", "WWWWWWWWWWWW"])
    figure.set_dpi(200)
    for panel in figure.axes[:-1]:
        room = panel.get_position(original=True).width * figure.bbox.width
        assert panel.title.get_window_extent().width <= room
    short = explanation_figure(found, ["cat", "dog", "cow"]).axes[:-1]
    assert {panel.title.get_fontsize() for panel in short} == {7.5}


def test_overlays_show_the_map_in_the_colours_of_the_bar() -> None:
    image = torch.zeros(1, 28, 28)
    for value, strongest in ((1.0, 0), (-1.0, 2)):  # red for, blue against
        rgb = overlay(image, torch.full((7, 7), value))
        assert rgb.shape == (224, 224, 3)
        assert rgb.min() >= 0
        assert rgb.max() <= 1
        assert (rgb.argmax(axis=2) == strongest).all()
    nothing = overlay(torch.rand(3, 32, 32), torch.zeros(8, 8))
    assert np.allclose(nothing[..., 0], nothing[..., 2])  # the pale image alone, in grey


@pytest.mark.parametrize(("channels", "suffix"), [(1, ".png"), (3, ".pdf"), (3, ".svg")])
def test_the_picture_has_six_panels_an_image_and_one_colour_bar(
    channels: int, suffix: str, make_problem, tmp_path: Path
) -> None:
    model, x, y = make_problem(2, channels)
    found = explain(model, x, y, eps=8 / 255, steps=2)
    figure = explanation_figure(found, ["zero", "one", "a name that is much too long"])
    path = tmp_path / f"maps{suffix}"
    save_picture(figure, path)
    assert len(figure.axes) == 2 * 6 + 1
    texts = [text.get_text() for text in figure.texts]
    assert "attacked towards the target, eps = 8/255" in texts
    titles = [axes.get_title() for axes in figure.axes]
    name = ["zero", "one", "a name that…"][int(y[0])]
    assert titles[1] == f"true {name} ({found.probabilities[0, y[0]]:.2f})"
    assert path.stat().st_size > 5000


def test_maps_of_a_row_share_one_scale(make_problem) -> None:
    model, x, y = make_problem(1)
    found = explain(model, x, y, eps=0.1, steps=2)
    panels = explanation_figure(found).axes
    scale = max(found.maps.abs().max(), found.maps_adv.abs().max())
    expected = overlay(found.images[0], found.maps[0, 1] / scale)
    assert np.allclose(panels[2].images[0].get_array(), expected)


def test_a_picture_without_a_known_suffix_is_refused(make_problem, tmp_path: Path) -> None:
    model, x, y = make_problem(1)
    figure = explanation_figure(explain(model, x, y, eps=0.1, steps=1))
    with pytest.raises(InputError, match="must end in"):
        save_picture(figure, tmp_path / "maps.gif")
    assert not list(tmp_path.iterdir())


def test_networks_are_compared_image_by_image(make_problem, tmp_path: Path) -> None:
    model, x, y = make_problem(2)
    history = [{"epoch": 1, "clean_accuracy": 0.5, "robust_accuracy": None}]
    robust = [{"epoch": 1, "clean_accuracy": 0.5, "robust_accuracy": 0.25}]
    rows = sweep(model, x, y, eps=[0, 0.1], steps=[2])
    found = explain(model, x, y, eps=0.1, steps=2)
    contenders = [
        Contender("Plain", history, rows, rows, found),
        Contender("Int", robust, rows, rows, found),
    ]
    figure = comparison_figure(contenders, ["0", "1", "2"], 0.1)
    training, attacked, *panels = figure.axes
    assert len(training.lines) == 3  # two clean curves, one under attack
    assert [line.get_ydata().tolist() for line in attacked.lines[:2]] == [
        [row["accuracy"] for row in rows]
    ] * 2
    assert len(panels) == 2 * 2 * 6 + 1
    assert [panels[i].get_ylabel() for i in (0, 6, 12, 18)] == ["Plain", "Int"] * 2
    save_picture(figure, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
