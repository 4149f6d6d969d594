"""Our networks, unchanged, through RobustBench's own `benchmark`: the figures are those of `sweep`.

Two things are replaced. torchvision's reader of CIFAR-10, which would download it, gives the
images of the test. And `pkg_resources`, by which RobustBench finds its lists of ImageNet's files,
is an empty module where setuptools no longer has it. RobustBench's release 1.1.1 has the text of
`benchmark` commented out; there the test runs that text.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastinterp import data, models
from fastinterp.evaluation import THREAT_MODELS, paper_selection, robustbench_entry, sweep
from fastinterp.models import GapClassifier

pytestmark = [pytest.mark.interop, pytest.mark.slow]  # RobustBench takes half a minute
N = 12
Problem = tuple[GapClassifier, Tensor, Tensor, float]


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[float, float]]:
    """`robustbench.eval.benchmark`."""
    if importlib.util.find_spec("pkg_resources") is None:
        monkeypatch.setitem(sys.modules, "pkg_resources", ModuleType("pkg_resources"))
    pytest.importorskip("autoattack")
    pytest.importorskip("robustbench")
    module = importlib.import_module("robustbench.eval")
    if not hasattr(module, "benchmark"):
        assert module.__file__ is not None
        lines = Path(module.__file__).read_text("utf-8").splitlines()
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
        module = ModuleType("robustbench.eval")
        exec(compile(text, "robustbench/eval.py", "exec"), module.__dict__)
    found: Callable[..., tuple[float, float]] = module.benchmark
    return found


@pytest.fixture
def released(shared: Path) -> Problem:
    """The authors' Int of CIFAR-10, images of uint8 [N, 3, 32, 32], their classes, and eps."""
    test = data.load("cifar10", shared / "data")
    chosen, _ = paper_selection(len(test), N)
    model = models.load(shared / "networks" / "cifar_smallgap_int_200.pkl").eval()
    return model, test.images[chosen], test.labels[chosen], 8 / 255


@pytest.fixture
def wrapped() -> Problem:
    """Another library's kind of network, untrained, wrapped with a normalisation."""
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.BatchNorm2d(16), nn.GELU())
    network = nn.Sequential(stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    model = models.wrap(network, mean=[0.5] * 3, std=[0.25] * 3).eval()
    pixels = torch.randint(256, (N, 3, 4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    labels = model(pixels / 255).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10
    return model, pixels.to(torch.uint8), labels, 2 / 255


@pytest.mark.parametrize("problem", ["released", "wrapped"])
def test_benchmark_has_the_figures_of_our_entry(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    robustbench: Callable[..., tuple[float, float]],
    problem: str,
) -> None:
    model, pixels, labels, eps = request.getfixturevalue(problem)
    threat = dataclasses.replace(THREAT_MODELS["cifar10-linf"], n=N, eps=eps)
    monkeypatch.setitem(THREAT_MODELS, "cifar10-linf", threat)
    figures = {"eps": [0, eps], "protocol": "autoattack", "progress": False}
    rows = sweep(model, pixels / 255, labels, **figures)
    entry = robustbench_entry(rows, "cifar10-linf", name="ours", architecture="small")

    def cifar10(transform: Callable[..., Tensor], **_: object) -> list[tuple[Tensor, int]]:
        pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
        return [(transform(one), int(y)) for one, y in zip(pictures, labels, strict=True)]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", cifar10)
    monkeypatch.chdir(tmp_path)
    clean, robust = robustbench(
        model, N, threat.dataset, threat.title, to_disk=True, model_name="ours", eps=eps
    )
    assert entry["clean_acc"] == f"{100 * clean:.2f}"
    assert abs(float(entry["autoattack_acc"]) - 100 * robust) <= 100 / N + 0.01
    assert 0 < robust < clean < 1
    path = tmp_path / "model_info" / threat.dataset / threat.title / "ours.json"
    written = json.loads(path.read_text("utf-8"))
    assert all(written[key] == entry[key] for key in ("dataset", "eps"))
    needed = written.keys() - {"corruptions_acc", "corruptions_mce", "footnote"}
    assert needed <= entry.keys(), needed
