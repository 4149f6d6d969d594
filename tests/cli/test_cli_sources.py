"""Networks by name on the command line: trained, measured, and never chosen by a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fastinterp import InputError, NormalTrainer, data, models, training
from fastinterp.cli import main

TOY = """
from torch import nn
def pooled(num_classes, in_channels, width=4):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, num_classes),
    )
def narrow(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
def hidden(num_classes, in_channels):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784 * in_channels, 16), nn.ReLU(), nn.Linear(16, num_classes)
    )
"""
SHORT = ("--set", "epochs=1", "steps=1", "train_images=60", "eps_schedule=")


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "clitoys.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("clitoys", None)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main([*words, "--device", "cpu"])
    out, err = capsys.readouterr()
    assert code == 0 or (code == 2 and err.count("\n") == 1)
    return code, out if code == 0 else err


EVAL = ("--dataset", "digits", "--eps", "0", "--n", "all", "--out", "rows.json")


def test_a_function_trains_and_is_evaluated(toy: Path, capsys) -> None:
    named = ("--model", "clitoys:pooled", "--method", "int", "--mean", "0.5", "--std", "0.25")
    words = ("train", "--dataset", "digits", *named, "--arguments", "width=6", *SHORT)
    code, _ = run(capsys, *words)
    folder = toy / "runs" / "digits-clitoys-pooled-int"
    assert code == 0 and (folder / "model.safetensors").is_file()
    config = models.info(folder)["config"]
    assert config == {
        "source": "clitoys:pooled", "in_channels": 1, "num_classes": 10,
        "mean": [0.5], "std": [0.25], "arguments": {"width": 6},
    }  # fmt: skip
    code, text = run(capsys, "eval", str(folder), *EVAL)
    assert code == 2 and "clitoys:pooled, which a file may not run" in text
    code, _ = run(capsys, "eval", "clitoys:pooled", "--weights", str(folder), *EVAL)
    assert code == 0
    model, test = models.load(folder, trust="clitoys:pooled"), data.load("digits")
    right = (model(test.float()).argmax(1) == test.labels).sum()
    (row,) = json.loads(Path("rows.json").read_text())["rows"]
    assert row["accuracy"] == int(right) / len(test)
    picture = ("--dataset", "digits", "--n", "1", "--steps", "1", "--out", "maps.png")
    assert run(capsys, "explain", "clitoys:pooled", "--weights", str(folder), *picture)[0] == 0
    # Trained on, from these weights.
    more = ("--weights", str(folder), "--out", "more", "--set", "epochs=1", "train_images=60")
    assert run(capsys, "train", "digits-clitoys:pooled-normal", "--arguments", "width=6", *more)


def test_a_network_without_maps_is_trained_and_evaluated(toy: Path, capsys) -> None:
    words = ("train", "--dataset", "digits", "--model", "clitoys:hidden", "--out", "run", *SHORT)
    assert run(capsys, *words, "--method", "adv")[0] == 0
    named = ("clitoys:hidden", "--weights", "run")
    assert run(capsys, "eval", *named, *EVAL)[0] == 0
    words = ("train", "digits-clitoys:hidden-int", "--out", "other", *SHORT)
    code, text = run(capsys, *words)
    assert code == 2 and "GapClassifier" in text
    assert run(capsys, *words, "interpreter=gradient")[0] == 0


def test_a_run_without_a_source_says_so(toy: Path, capsys) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(4, 10))  # fmt: skip
    model = models.wrap(network, [0.5], [0.25])
    images = data.load("digits", split="train").subset(slice(0, 40))
    NormalTrainer(model).fit(
        images, 1, 20, val_data=images, out="run", progress=False,
        val_attack=lambda x, y: x,
    )  # fmt: skip
    assert {"best.safetensors", "model.safetensors"} <= {p.name for p in Path("run").iterdir()}
    code, text = run(capsys, "eval", "run", *EVAL)
    assert code == 2 and "only the weights" in text and "into=network" in text
    # Its normalisation is not lost: other numbers are refused, and a function's are the file's.
    with pytest.raises(InputError, match="mean = "):
        models.load("run", into=models.wrap(network))
    named = models.from_source("clitoys:pooled", 10, 1, weights="run")
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(named(x), model.eval()(x))
    best = Path("run") / "best.safetensors"
    assert models.load(best, into=models.wrap(network, [0.5], [0.25])) is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("eval", "clitoys:pooled", *EVAL), "random weights; give trained ones with --weights"),
        (("eval", "a.safetensors", "--weights", "b.safetensors", *EVAL), "leave them out"),
        (("train", "--dataset", "digits", "--model", "smal"), "did you mean 'small'"),
        (("train", "digits-int", "--mean", "0.5"), "not for small"),
        (("train", "digits-torchvision:resnet18-int"), "3 channels"),
        (("train", "digits-nowhere:make-int"), "Cannot find nowhere:make"),
        (("train", "digits-clitoys:narrow-normal"), "does not run on images of shape [1, 28, 28]"),
        (("eval", "clitoys:pooled", "--arguments", "width", *EVAL), "KEY=VALUE"),
        (("train", "own.toml"), "function clitoys:pooled, which a file may not run"),
        (("train", "based.toml"), "function clitoys:pooled, which a file may not run"),
    ],
)
def test_what_cannot_be(toy: Path, capsys, words: tuple[str, ...], says: str) -> None:
    Path("own.toml").write_text('base = "digits-int"\nmodel = "clitoys:pooled"\n')
    Path("based.toml").write_text('base = "digits-clitoys:pooled-int"\n')
    code, text = run(capsys, *words)
    assert code == 2 and says in text


def test_recipes_take_sources(toy: Path) -> None:
    Path("own.toml").write_text(
        'base = "digits-int"\nmodel = "torchvision:resnet18"\nmean = [0.5, 0.5, "1/2"]\n'
        "num_classes = 20\narguments = {dropout = 0.5}\n".replace('"1/2"', "0.5")
    )
    recipe = training.load_recipe("own.toml")
    assert (recipe.model, recipe.num_classes) == ("torchvision:resnet18", 20)
    assert (recipe.mean, recipe.arguments) == ((0.5,) * 3, {"dropout": 0.5})
    assert training.load_recipe("own.toml", ["model=clitoys:pooled"]).model == "clitoys:pooled"
