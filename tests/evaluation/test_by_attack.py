"""What `fastinterp eval --attack` measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastinterp import InputError, data, models
from fastinterp.cli import main
from fastinterp.evaluation import paper_selection
from fastinterp.evaluation.aai_scores import aai_sweep, paper_noise
from fastinterp.evaluation.by_attack import MEASURES, Request, measure, settings_used
from fastinterp.evaluation.corruptions import CORRUPTIONS, corruption_sweep
from fastinterp.evaluation.isa_scores import isa_row
from fastinterp.interpreters import GradCAMPlusPlus

N = 6
AS_PUBLISHED = {"kind": "topk", "k": 8, "hinge": 0.0}


@pytest.fixture(scope="module")
def test_data() -> data.ImageData:
    return data.load("digits")


def request_for(test_data: data.ImageData, **settings: Any) -> Request:
    return Request(models.small(seed=0), test_data, N, **settings)


def test_every_attack_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, out = tmp_path / "n.safetensors", tmp_path / "rows.json"
    models.save(models.small(seed=0), network)
    words = ["eval", str(network), "--dataset", "digits", "--n", "2", "--device", "cpu"]
    aai = {"kendall_tau", "topk_intersection", "n_unchanged"}
    fields = {"aai": aai, "isa": {"nds", "nsl", "interpreter", "norm"}}
    for attack in MEASURES:
        short = (
            ["--norm", "l1", "--classes", "2-class"]
            if attack == "isa"
            else ["--steps", "1", "--eps", "0.1"]
        )
        assert main([*words, "--attack", attack, *short, "--out", str(out)]) == 0
        written = json.loads(out.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
        assert written["model"] == str(network)
        assert (written["attack"], written["protocol"]) == (attack, "paper")
        assert len(written["rows"]) == 1
        assert set(written["rows"][0]) >= fields.get(attack, {"eps", "steps", "accuracy", "n"})
    assert "accuracy under elastic" in capsys.readouterr().out


def test_aai_is_the_papers(test_data: data.ImageData) -> None:
    request = request_for(test_data, eps=[0.05, 0.1], steps=[3], interpreter="gradcam++")
    chosen, _ = paper_selection(len(test_data), N)
    expected = aai_sweep(
        request.model,
        GradCAMPlusPlus(request.model),
        test_data.float(chosen),
        test_data.labels[chosen],
        eps=[0.05, 0.1],
        steps=3,
        noise=paper_noise(len(test_data), N, test_data.images.shape[1:]),
        progress=False,
    )
    assert all(row["n_unchanged"] for row in expected), "NaN equals nothing"
    assert measure("aai", request) == expected


def test_aai_with_a_hinge_keeps_predictions(test_data: data.ImageData) -> None:
    settings = {"eps": [0.5], "steps": [10], "kind": "discrepancy", "k": 4}
    (free,) = measure("aai", request_for(test_data, **settings))
    (held,) = measure("aai", request_for(test_data, hinge=10.0, **settings))
    assert free["n_unchanged"] < held["n_unchanged"] == N


def test_isa_is_isa_row(test_data: data.ImageData) -> None:
    request = request_for(test_data, norm="l2", classes="2-class")
    (row,) = measure("isa", request)
    expected = isa_row(request.model, test_data, "cam", "l2", "2-class", n=N, progress=False)
    for key, value in expected.items():
        assert row[key] == (None if value != value else value)


def test_corruptions_lead_to_the_papers_targets(test_data: data.ImageData) -> None:
    request = request_for(test_data, eps=[1.0], steps=[2])
    chosen, offsets = paper_selection(len(test_data), N)
    labels = test_data.labels[chosen]
    targets = (labels + offsets) % 10
    images = test_data.float(chosen)
    expected = corruption_sweep(
        request.model, images, labels, targets, attack="jpeg-l2", eps=[1.0], steps=[2]
    )
    assert measure("jpeg-l2", request) == expected


@pytest.mark.parametrize(
    ("attack", "settings", "sentence"),
    [
        ("isa", {"eps": [0.1]}, "--eps"),
        ("isa", {"norm": "linf"}, "l1 or l2"),
        ("pgd", {"interpreter": "cam"}, "--interpreter"),
        ("pgd", {"hinge": 10.0}, "--hinge"),
        ("aai", {"classes": "2-class"}, "--classes"),
        ("aai", {"interpreter": "repr"}, "the interpreter repr has no map for a class"),
        ("aai", {"protocol": "best", "kind": "rank"}, "--kind has no meaning"),
        ("pgd", {"norm": "l2"}, "give --eps"),
        ("aai", {"norm": "l1"}, "give --eps"),
        ("jpeg-l1", {"step_size": 0.1}, "--step-size"),
        ("fog", {"norm": "l2"}, "--norm"),
    ],
)
def test_settings_that_do_not_apply_are_refused(
    attack: str, settings: dict[str, Any], sentence: str, test_data: data.ImageData
) -> None:
    with pytest.raises(InputError, match=sentence):
        measure(attack, request_for(test_data, **settings))


def test_settings_are_recorded_as_taken(test_data: data.ImageData) -> None:
    plain = request_for(test_data)
    assert settings_used("pgd", plain) == {"norm": "linf", "step_size": 0.01, "seed": 0}
    taken = settings_used("aai", plain)
    assert taken == {"norm": "linf", "step_size": 0.01, "seed": 99} | AS_PUBLISHED
    assert settings_used("isa", plain) == {"norm": None, "step_size": None, "seed": 123}
    assert settings_used("jpeg-l1", plain)["step_size"] is None
    assert settings_used("gabor", plain)["step_size"] == "eps / sqrt(steps)"
    l2 = request_for(test_data, norm="l2", seed=5)
    assert settings_used("pgd", l2) == {"norm": "l2", "step_size": "2.5 eps / steps", "seed": 5}
    assert set(CORRUPTIONS) < set(MEASURES)
