"""`fastinterp reproduce` as a user meets it, and the training of missing networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fastinterp import InputError, __version__, data, models, training
from fastinterp import reproduce as again
from fastinterp.cli import main
from fastinterp.cli.reproducing import _duration
from fastinterp.reproduce import Network, train_missing
from fastinterp.reproduce.figures import under_pgd
from fastinterp.training import Recipe

CPU = torch.device("cpu")
TINY = {"epochs": 1, "train_images": 100, "val_images": 0, "steps": 1}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of a second; digits stand in for MNIST."""
    load_recipe, load_data = training.load_recipe, data.load

    def load(name: str, overrides: Mapping[str, Any] | Iterable[str] = ()) -> Recipe:
        return load_recipe(name, {**dict(overrides), **TINY})  # type: ignore[arg-type]

    def digits(name: str, root: Any, split: Any, device: Any = "cpu", **_: Any) -> data.ImageData:
        return load_data("digits", None, split, device)

    monkeypatch.setattr(training, "load_recipe", load)
    monkeypatch.setattr(data, "load", digits)
    monkeypatch.setattr(under_pgd, "STEPS", 2)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_missing_networks_are_trained_by_their_recipes(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "not" / "there"
    needed = [Network("mnist", "small", "normal"), Network("mnist", "small", "int", 0.1)]
    runs = train_missing(needed, folder, None, quick=True, device=CPU, progress=False)
    assert [run.name for run in runs] == ["mnist-quick-normal", "mnist-quick-int-gamma-0.1"]
    said = capsys.readouterr().out.splitlines()
    assert "not held against" in said[0]
    assert said[1].startswith("training mnist-quick-normal (1 of 2): ")
    assert said[2].startswith("training mnist-quick-int-gamma-0.1 (2 of 2): ")
    recipe = models.info(runs[1] / "model.safetensors")["recipe"]
    assert (recipe["name"], recipe["gamma"], recipe["epochs"]) == ("mnist-quick-int", 0.1, 1)
    assert train_missing(needed, folder, None, quick=True, device=CPU, progress=False) == []
    # Whoever asks for the paper's recipe is not content with the short one.
    (full,) = train_missing(needed[:1], folder, None, quick=False, device=CPU, progress=False)
    assert full.name == "mnist-small-normal"
    assert models.info(full / "model.safetensors")["recipe"]["name"] == "mnist-small-normal"


def test_a_stopped_training_goes_on(tiny: None, tmp_path: Path) -> None:
    needed = [Network("mnist", "small", "normal")]
    (run,) = train_missing(needed, tmp_path, None, quick=True, device=CPU, progress=False)
    (run / "model.safetensors").unlink()  # as if stopped after the last epoch
    before = (run / "history.json").read_text()
    train_missing(needed, tmp_path, None, quick=True, device=CPU, progress=False)
    assert (run / "model.safetensors").is_file()
    assert (run / "history.json").read_text() == before


def test_nothing_is_trained_where_a_recipe_is_missing(tmp_path: Path) -> None:
    normal = Network("mnist", "small", "normal")
    with pytest.raises(InputError, match=r"MNIST Small only.*cifar10-small-int"):
        train_missing(
            [normal, Network("cifar10", "small", "int")], tmp_path, None, quick=True, device=CPU
        )
    wide = Network("restricted_imagenet", "wresnet", "int")
    with pytest.raises(InputError, match="No recipe trains restricted_imagenet-wresnet-int"):
        train_missing([normal, wide], tmp_path, None, quick=False, device=CPU)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot make the folder"):
        train_missing([normal], tmp_path / "file", None, quick=False, device=CPU)


def test_the_network_of_restricted_imagenet_has_a_recipe(tmp_path: Path) -> None:
    """It asks for ImageNet, not for a recipe."""
    (wide,) = again.load_table("table1").needed(["restricted_imagenet"])
    with pytest.raises(InputError, match=r"^restricted_imagenet needs the folder that holds it"):
        train_missing([wide], tmp_path, None, quick=False, device=CPU)


def test_train_then_draw(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figA1.png"
    words = [
        "reproduce", "figA1", "--train", "quick", "--networks", tmp_path / "runs", "--only", "0.1",
        "0.03", "--n", "2", "--out", out, "--device", "cpu",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "training mnist-quick-int-gamma-0.03 (" in said
    assert f"written: {tmp_path / 'figA1.json'}, {out}" in said
    assert out.is_file()
    rows = json.loads((tmp_path / "figA1.json").read_text())["rows"]
    assert [row["gamma"] for row in rows] == [0.03] * 3 + [0.1] * 3
    written = json.loads((tmp_path / "figA1.json").read_text())
    assert [by["fastinterp"] for by in written["measured_by"]] == [__version__]
    assert "note:" not in said
    written["measured_by"][0]["fastinterp"] = "0.0.1"
    (tmp_path / "figA1.json").write_text(json.dumps(written))
    assert {row["recipe"] for row in rows} == {"mnist-quick-int"}
    # The picture alone, again.
    out.unlink()
    assert main(["reproduce", "figA1", "--only", "0.1", "0.03", "--n", "2", "--out", str(out)]) == 0
    assert out.is_file()
    assert "holds results that were measured with fastinterp 0.0.1" in capsys.readouterr().out
    written = json.loads((tmp_path / "figA1.json").read_text())
    assert [by["fastinterp"] for by in written["measured_by"]] == ["0.0.1"], "only drawn again"


def test_iterations_of_recipes_are_timed_side_by_side(tiny: None) -> None:
    recipes = [training.load_recipe(f"mnist-small-{method}") for method in ("normal", "int")]
    found = training.time_recipes(recipes, rounds=3, progress=False)
    assert [(time.iterations, time.timed) for time in found] == [(2, 3), (2, 3)]
    assert all(time.seconds > 0 for time in found)


def test_words_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "or --train; fig3 takes 8 mnist small networks" in refused(capsys, "reproduce", "fig3")
    assert "did you mean 'figA1'" in refused(capsys, "reproduce", "fgA1")
    assert "must end in .json" in refused(
        capsys, "reproduce", "table3", "--networks", tmp_path, "--out", "table3.png"
    )
    assert "choose networks by --only" in refused(
        capsys, "reproduce", "tableA1", "--train", "quick", "--only", "cifar10"
    )
    assert "there is no 'quik', did you mean 'quick'" in refused(
        capsys, "reproduce", "fig3", "--train", "quik"
    )
    assert list(tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["fig3", "--networks", "."], True),
        (["table3", "--networks", ".", "--out", "table3.json"], True),
        (["table3", "--networks", "."], False),
    ],
)
def test_ctrl_c_says_how_to_go_on(
    words: list[str],
    goes_on: bool,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastinterp.reproduce.reproduce_table", stop)
    monkeypatch.setattr("fastinterp.reproduce.reproduce_figure", stop)
    assert main(["reproduce", *words]) == 130
    said = capsys.readouterr().err
    assert ("goes on from what was written" in said) == goes_on
    assert ("begins anew" in said) != goes_on


def test_durations_are_said_as_people_do() -> None:
    said = [_duration(minutes) for minutes in (0.2, 4.4, 60, 300, 6000)]
    assert said == ["about 1 min", "about 4 min", "about 60 min", "about 5 h", "about 4 days"]


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    names = [line.split()[0] for line in lines]
    tables = [f"table{i}" for i in range(1, 6)] + [f"tableA{i}" for i in range(1, 6)]
    assert names == [*tables, "fig1", "fig2", "fig3", "figA1"]
    assert all("  about " in line for line in lines)


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m fastinterp train --list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True
    )
    first, code = done.stdout.splitlines()
    assert first.startswith("recipe")
    # Output small enough for the pipe's buffer may all have been taken before head closed it.
    assert code in ("0", "141")
    assert done.stderr == ""


def test_writing_into_a_closed_pipe_ends_quietly() -> None:
    program = (
        "import os, sys\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "from fastinterp.cli import main\n"
        "sys.exit(main(['reproduce', '--list']))"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_misspelt_setting_is_met_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "train", "mnist-small-int", "--set", "epocs=3")
    expected = "A recipe has no setting 'epocs'; did you mean 'epochs'?"
    assert err == f"fastinterp: error: {expected}\n"
