"""Networks by name: built, saved and loaded again; a file runs nothing of its own choice."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fastinterp import InputError, models

SMALL = "torchvision:shufflenet_v2_x0_5"
TOY = """
from torch import nn
calls = []
def pooled(num_classes, in_channels, width=4):
    calls.append(width)
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
def hidden(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toynets.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("toynets", None)


def rewritten(path: Path, **changes: Any) -> Path:
    """The checkpoint with another config."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fastinterp"])
    header["config"] |= changes
    other = path.with_name("other.safetensors")
    save_file(load_file(path), other, {"fastinterp": json.dumps(header)})
    return other


def test_a_network_of_torchvision_comes_back(tmp_path: Path) -> None:
    model = models.from_source(SMALL, 7, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), seed=3)
    assert isinstance(model, models.GapClassifier) and model.num_classes == 7
    assert model.config == {
        "source": SMALL, "in_channels": 3, "num_classes": 7, "arguments": {},
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    path = tmp_path / "model.safetensors"
    models.save(model, path, {"epochs": 2})
    before = torch.get_rng_state()
    read = models.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert read.config == model.config and not read.training
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(read(x), model.eval()(x), rtol=0, atol=0)
    # The normalisation is part of it: the bare module gets (x - mean) / std.
    mean, std = (torch.tensor(model.config[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(read.module((x - mean) / std), read(x))
    torch.testing.assert_close(models.build(model.config, seed=3).eval()(x), read(x))


def test_a_network_without_maps_comes_back(toy: Path) -> None:
    model = models.from_source("toynets:hidden", 5, mean=(0.5,) * 3, std=(2.0,) * 3).double()
    assert isinstance(model, models.PlainClassifier)
    models.save(model, toy / "a.safetensors")
    read = models.load(toy / "a.safetensors", trust="toynets:hidden")
    assert isinstance(read, models.PlainClassifier)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(read(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(model.module((x - 0.5) / 2), model(x))


def test_a_file_runs_no_function(toy: Path) -> None:
    model = models.from_source("toynets:pooled", 5, 1, arguments={"width": 6})
    path = toy / "model.safetensors"
    models.save(model, path)
    calls = sys.modules["toynets"].calls
    calls.clear()
    for trust in (None, "toynets:hidden"):
        with pytest.raises(InputError, match=r"toynets:pooled, which a file may not run.*trust="):
            models.load(path, trust=trust)
    with pytest.raises(InputError, match="may not run"):
        models.build(model.config)
    assert calls == []
    x = torch.rand(2, 1, 8, 8)
    expected = model.eval()(x)
    torch.testing.assert_close(models.load(path, trust="toynets:pooled")(x), expected)
    # Named by the user, the file's own arguments count.
    again = models.from_source("toynets:pooled", weights=path)
    torch.testing.assert_close(again.eval()(x), expected)
    into = models.wrap(sys.modules["toynets"].pooled(5, 1, 6))
    assert models.load(path, into=into) is into
    torch.testing.assert_close(into(x), expected)
    # The bare module's weights serve, too.
    save_file(model.module.state_dict(), toy / "bare.safetensors")
    bare = models.load(toy / "bare.safetensors", into=sys.modules["toynets"].pooled(5, 1, 6))
    torch.testing.assert_close(bare(x), expected)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("torchvision:resnet81", "did you mean 'resnet18'"),
        ("torchvision:fcos_resnet50_fpn", "no network"),  # no classifier
        ("torchvision:list_models", "no network"),
        ("torchvision:_utils.os", "no network"),
        ("torchvision:../../tmp/x", "must be timm"),
        ("timm:hf-hub:somebody/net", "must be timm"),
        ("os.path:../join", "must be timm"),
        ("resnet18", "must be timm"),
        ("nowhere.at.all:make", "Cannot find"),
        ("math:sin", "cannot be built|must give"),
        (7, "must be timm"),
    ],
)
def test_names_are_checked(source: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        models.from_source(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arguments": {"weights": "DEFAULT"}}, "must be one of"),
        ({"arguments": {"dropout": "a/b"}}, "number or a word"),
        ({"arguments": {"dropout": 1e9}}, "number or a word"),
        ({"arguments": []}, "dict"),
        ({"arguments": {"dropout": 0.1}}, "cannot be built"),  # this one takes none
        ({"mean": [0.5]}, "mean must be 3"),
        ({"mean": [float("nan")] * 3}, "finite"),
        ({"std": [0, 1, 1]}, "above 0"),
        ({"num_classes": 0}, "at least 1"),
        ({"num_classes": 2**40}, "at most"),
        ({"num_classes": 9}, "shape"),
        ({"in_channels": 1, "mean": [0], "std": [1]}, "3 channels"),
        ({"source": "torchvision:vit_h_14"}, "does not hold"),  # 2.5 GB are not taken first
        ({"source": ["os"]}, "must be timm"),
        ({"more": 1}, "exactly the keys"),
    ],
)
def test_configs_of_files_are_checked(
    saved: Path, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as error:
        models.load(rewritten(saved, **changes))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    models.save(models.from_source(SMALL, 7, seed=0), path)
    return path


def test_weights_for_other_classes(saved: Path) -> None:
    with pytest.raises(InputError, match=r"'fc.weight' has shape \[7, 1024\] there"):
        models.from_source(SMALL, 4, weights=saved)
    with pytest.warns(UserWarning, match=r"fc\.weight, fc\.bias.*initial"):
        model = models.from_source(SMALL, 4, weights=saved, new_classifier=True, seed=1)
    assert model.num_classes == 4
    old = models.load(saved)
    assert torch.equal(model.module.conv1[0].weight, old.module.conv1[0].weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.from_source(SMALL, weights=saved, new_classifier=True)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    path = tmp_path / "a.safetensors"
    for state, says in (
        ({"weight": torch.ones(2, 3)}, "lacks 'bias'"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, "also holds"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "has shape"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2, dtype=torch.int64)}, "int64"),
    ):
        save_file(state, path)
        with pytest.raises(InputError, match=says):
            models.load(path, into=network)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a safetensors file"):
        models.load(path, into=network)


def test_a_changed_network_is_not_saved_as_what_it_was(tmp_path: Path) -> None:
    model = models.from_source(SMALL, 7)
    model.module.conv5 = nn.Identity()
    with pytest.raises(InputError, match="not those of the network"):
        models.save(model, tmp_path / "a.safetensors")
    model.config = None
    models.save(model, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="only the weights"):
        models.load(tmp_path / "a.safetensors")


def test_timm_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    from fastinterp.models import names

    names.names_of.cache_clear()
    with pytest.raises(InputError, match="pip install timm"):
        models.from_source("timm:resnet18")


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "arguments", "exact"),
    [
        ("resnet10t", {}, True),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "img_size": 32}, True),
        ("vit_tiny_patch16_224", {"img_size": 32}, False),
        ("test_convnext.r160_in1k", {}, True),
    ],
)
def test_networks_of_timm(tmp_path: Path, name: str, arguments: Any, exact: bool) -> None:
    timm = pytest.importorskip("timm")
    model = models.from_source(f"timm:{name}", 5, 3, arguments=arguments, seed=0)
    assert isinstance(model, models.GapClassifier) == exact
    own = timm.create_model(name, num_classes=5, **arguments)
    assert model.config["mean"] == list(own.default_cfg["mean"])
    models.save(model, tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 32, 32)
    read = models.load(tmp_path / "a.safetensors")
    torch.testing.assert_close(read(x), model.eval()(x), rtol=0, atol=0)
    models.load(tmp_path / "a.safetensors", into=own)
    mean, std = (torch.tensor(model.config[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(own((x - mean) / std), read(x))
