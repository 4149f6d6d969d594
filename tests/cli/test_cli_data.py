"""The command line on data sets that are streamed or downloaded, and on attacks that fall short."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from fastinterp import data, models, training
from fastinterp.cli import commands, main
from fastinterp.training.recipe import training_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("left", "right"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (9, 9, 3), generator=generator, dtype=torch.uint8)
                path = tmp_path / "data" / split / name / f"{i}.png"
                Image.fromarray(pixels.numpy()).save(path)
    return tmp_path / "data"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "pool.safetensors"
    models.save(models.pool(3, 2, seed=0), path)
    return path


def test_folders_are_streamed(folder: Path, network: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(data, "stream", partial(data.stream, size=28))  # 224 takes long
    out = tmp_path / "rows.json"
    about = ["--dataset", "imagefolder", "--data-dir", str(folder), "--device", "cpu"]
    words = ["eval", str(network), *about, "--eps", "0", "1/255", "--steps", "1", "--n", "all"]
    assert main([*words, "--workers", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    held, model = data.load("imagefolder", folder, size=28), models.load(network)
    with torch.no_grad():
        right = int((model(held.float()).argmax(1) == held.labels).sum())
    assert (rows[0]["accuracy"], rows[0]["n"]) == (right / 4, 4)
    assert main([*words, "--transform", "center-crop"]) == 0
    audited = []
    monkeypatch.setattr(
        commands.evaluation, "audit", lambda *given, **_: audited.append(given) or []
    )
    assert main(["audit", str(network), *about, "--n", "3"]) == 0
    assert isinstance(audited[0][1], data.ImageStream) and len(audited[0][1]) == 3
    picture = ["--out", str(tmp_path / "maps.png"), "--n", "1", "--steps", "1"]
    assert main(["explain", str(network), *about, *picture]) == 0


@pytest.mark.filterwarnings("ignore:.*cannot reach")
def test_eval_marks_what_cannot_reach_the_boundary(tmp_path: Path, capsys) -> None:
    models.save(models.small(seed=0), tmp_path / "small.safetensors")
    out = tmp_path / "rows.json"
    words = ["eval", str(tmp_path / "small.safetensors"), "--dataset", "digits", "--n", "20"]
    assert main([*words, "--eps", "0", "0.3", "--steps", "10", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    clean, attacked = [line for line in text.splitlines() if line.split()[0] in ("0", "0.3")]
    assert not clean.endswith("*") and attacked.endswith(" *")
    assert "\n* The attack's steps together are shorter than eps" in text
    marks = [row.get("short_of_eps") for row in json.loads(out.read_text())["rows"]]
    assert marks == [None, True]
    assert main([*words, "--eps", "0.1", "--steps", "10"]) == 0
    assert "*" not in capsys.readouterr().out
    assert main([*words, "--eps", "8", "--steps", "10"]) == 2
    assert "write 8/255" in capsys.readouterr().err


def test_nothing_is_downloaded_unless_asked(network: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def load(name: str, *_: object, download: bool = False, **__: object):
        asked.append((name, download))
        raise data.dataset.InputError("stop")

    monkeypatch.setattr(data, "load", load)
    words = ["eval", str(network), "--dataset", "CIFAR-100", "--data-dir", str(tmp_path)]
    assert main(words) == main([*words, "--download"]) == 2
    train = ["train", "cifar10-int", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(train) == main([*train, "--download"]) == 2
    names = ["cifar100", "cifar100", "cifar10", "cifar10"]
    assert asked == list(zip(names, [False, True] * 2, strict=True))


def test_recipes_stream_folders_and_hold_images_out(folder: Path, tmp_path: Path) -> None:
    changes = {"dataset": "imagefolder", "model": "pool", "epochs": 1, "batch_size": 3}
    changes |= {"transform": "random-crop", "val_images": 2, "workers": 1}
    recipe = training.load_recipe("restricted_imagenet-pool-normal", changes)
    network, (row,) = training.run_recipe(recipe, folder, tmp_path / "run", progress=False)
    assert (row["images"], network.num_classes) == (6, 2)
    assert row["val_accuracy"] in (0.0, 0.5, 1.0)
    train, val = training_data(training.load_recipe(recipe.name, changes), folder)
    files = [*train.files, *val.files]
    assert len(set(files)) == len(files) == 8 and sorted(files) != files
    assert training_data(training.load_recipe(recipe.name, changes), folder)[1].files == val.files
    with pytest.raises(ValueError, match="extra is for images in memory"):
        training.run_recipe(training.load_recipe(recipe.name, {**changes, "extra": "x"}), folder)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train mnist-int --eps 0.3", "write --set eps=VALUE"),
        ("train mnist-int --learning-rate 1", "write --set lr=VALUE"),
        ("train mnist-int --batch-size 9", "write --set batch_size=VALUE"),
        ("train mnist-int --epoch=9", "write --set epochs=VALUE"),
        ("train mnist-int --datadir data", "did you mean '--data-dir'?"),
        ("eval m --dataset mnist --epsilon 0.3", "did you mean '--eps'?"),
        ("eval m --dataset mnist --alpha 0.3", "did you mean '--step-size'?"),
        ("eval m --dataset mnist --set eps=0.3", "write --eps 0.3"),
        ("audit m --dataset svnh", "did you mean 'svhn'?"),
        ("eval m --dataset SVHN --data-dir x", "no file m"),
    ],
)
def test_wrong_flags_point_at_the_right_one(words: str, says: str, capsys) -> None:
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
