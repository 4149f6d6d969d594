"""The audit passes an honest network and catches those that hide their gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError, models
from fastinterp.cli import main
from fastinterp.data import load
from fastinterp.evaluation import audit, paper_selection
from fastinterp.evaluation.obfuscation import rises
from fastinterp.models import GapClassifier
from fastinterp.training import AdvTrainer, NormalTrainer

EPS = 0.1
SETTINGS = {"eps": EPS, "steps": (1, 5, 20), "progress": False}


class Stripes(GapClassifier):
    """8x8 images of one channel -> 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(8, 4)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.classifier.weight

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        return self.classifier.bias

    def features(self, x: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.first(x))
        return nn.functional.relu(self.second(hidden))


class Rounded(Stripes):
    """The image is rounded to two levels, through which no gradient passes."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x.round())


class Saturated(Stripes):
    """Logits times 10^4: the softmax saturates and the cross-entropy's gradient underflows."""

    def logits(self, features: Tensor) -> Tensor:
        return 1e4 * super().logits(features)


def stripes(count: int) -> tuple[Tensor, Tensor]:
    y = torch.arange(count) % 4
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    kinds = torch.stack([rows, columns, rows + columns, rows // 2]) % 2
    noise = torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    return 0.7 * kinds[y][:, None] + 0.3 * noise, y


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    return stripes(64)


@pytest.fixture(scope="module")
def trained(data) -> GapClassifier:
    model = Stripes()
    AdvTrainer(model, eps=EPS, steps=3, step_size=0.05, lr=0.02).fit(
        data, epochs=15, batch_size=16, progress=False
    )
    return model.eval()


@pytest.fixture(scope="module")
def normal(data) -> GapClassifier:
    model = Stripes()
    NormalTrainer(model, lr=0.02).fit(data, epochs=15, batch_size=16, progress=False)
    return model.eval()


def masked(kind: type[Stripes], like: GapClassifier) -> GapClassifier:
    model = kind()
    model.load_state_dict(like.state_dict())
    return model.eval()


def test_a_trained_network_passes(trained, normal, data) -> None:
    checks = {c.name: c for c in audit(trained, *data, transfer_from=normal, **SETTINGS)}
    assert list(checks) == [
        "gradient",
        "direction",
        "randomness",
        "batch",
        "input",
        "more steps",
        "larger eps",
        "one step",
        "black box",
        "unbounded",
        "transfer",
    ]
    assert all(check.passed for check in checks.values()), checks
    assert list(checks["more steps"].figures) == ["1 step", "5 steps", "20 steps"]
    radii = ["eps 0", "eps 0.025", "eps 0.05", "eps 0.1", "eps 0.2", "eps 1"]
    assert list(checks["larger eps"].figures) == radii
    assert checks["larger eps"].figures["eps 0"] > 0.9
    assert checks["unbounded"].figures["eps 1"] == 0
    shared = checks["more steps"].figures["20 steps"]
    assert checks["larger eps"].figures["eps 0.1"] == shared
    assert checks["transfer"].figures["own gradients"] == shared


@pytest.mark.parametrize(("norm", "eps", "whole"), [("l2", 0.5, 8.0), ("l1", 2.0, 64.0)])
def test_other_norms(trained, data, norm: str, eps: float, whole: float) -> None:
    """The unbounded ball of 8x8 images holds all of them: its radius is sqrt(64) and 64."""
    checks = {c.name: c for c in audit(trained, *data, norm=norm, **SETTINGS | {"eps": eps})}
    assert all(check.passed is not False for check in checks.values()), checks
    radii = [f"eps {r:g}" for r in (0, eps / 4, eps / 2, eps, 2 * eps, whole)]
    assert list(checks["larger eps"].figures) == radii
    assert checks["unbounded"].figures == {f"eps {whole:g}": 0.0}
    with pytest.raises(InputError, match=f"eps must lie between 0 and {whole:g}"):
        audit(trained, *data, norm=norm, **SETTINGS | {"eps": 100.0})


def test_the_papers_int_network_passes(shared: Path) -> None:
    """Some of its images withstand a single climb of cross-entropy and margin, though eps is 1."""
    mnist = load("mnist", shared / "data")
    chosen, _ = paper_selection(len(mnist))
    chosen = chosen[40:80]  # among them the one that holds out longest
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl")
    checks = audit(
        model,
        mnist.float(chosen),
        mnist.labels[chosen],
        eps=0.3,
        steps=(1, 10, 100),
        progress=False,
    )
    assert all(check.passed is not False for check in checks), checks


def test_the_papers_int_network_passes_in_l1(shared: Path) -> None:
    """PGD is far weaker there than Square, which says nothing against the network."""
    mnist = load("mnist", shared / "data")
    chosen, _ = paper_selection(len(mnist), 30)
    model = models.load(shared / "networks" / "mnist_smallgap_int_100.pkl")
    x, y = mnist.float(chosen), mnist.labels[chosen]
    checks = audit(model, x, y, eps=10.0, norm="l1", steps=(1, 20, 40), progress=False)
    assert all(check.passed is not False for check in checks), checks
    figures = next(check.figures for check in checks if check.name == "black box")
    assert figures["PGD"] > figures["500 queries"] > figures["Auto-PGD"]


def test_without_another_network_transfer_is_skipped(trained, data) -> None:
    transfer = audit(trained, *data, **SETTINGS)[-1]
    assert transfer.passed is None
    assert transfer.word == "skipped"
    assert "No other network" in transfer.sentence


@pytest.mark.parametrize("kind", [Rounded, Saturated])
def test_masked_gradients_are_caught(trained, normal, data, kind: type[Stripes]) -> None:
    """The same weights, so that the masks alone make the difference."""
    x, y = data
    checks = {c.name: c for c in audit(masked(kind, trained), x, y, **SETTINGS)}
    assert checks["gradient"].passed is False
    assert checks["gradient"].figures["share of images without one"] > 0.2
    if kind is Rounded:  # the margin's gradient, which the unbounded attack takes too, is flat
        assert checks["unbounded"].passed is False
        assert checks["unbounded"].figures["eps 1"] > 0.2


def test_transfer_betrays_a_mask(normal, data) -> None:
    """The masked twin of a network falls to images made against that network."""
    hidden = masked(Saturated, normal)
    settings = SETTINGS | {"eps": 0.3}
    checks = {c.name: c for c in audit(hidden, *data, transfer_from=normal, **settings)}
    figures = checks["transfer"].figures
    assert checks["transfer"].passed is False
    assert figures["another network's"] < figures["own gradients"] - 0.1


def test_small_rises_are_borne_but_do_not_add_up() -> None:
    assert not rises([0.5, 0.505, 0.4], 0.01)
    assert rises([0.5, 0.505, 0.515], 0.01)
    assert rises([0.5, 0.4, 0.45], 0.01)
    assert not rises([0.5, 0.5, 0.1], 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0.0}, "eps must lie between 0 and 1"),
        ({"eps": 1.0}, "eps must lie between 0 and 1"),
        ({"norm": "l3"}, "norm must be one of"),
        ({"steps": ()}, "steps must"),
        ({"steps": (1,)}, "steps must"),
        ({"steps": "10"}, "steps must be a number or a list"),
        ({"steps": (1, 2.5)}, "steps must"),
        ({"steps": (0, 5)}, "steps must"),
        ({"tolerance": -0.1}, "tolerance must be"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_bad_settings_are_refused(data, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit(Stripes(), *data, **(SETTINGS | arguments))


def test_bad_images_are_refused(data) -> None:
    x, y = data
    with pytest.raises(InputError, match="no images"):
        audit(Stripes(), x[:0], y[:0], **SETTINGS)
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.3"):
        audit(Stripes(), x, y + 1, **SETTINGS)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained network scaled until its softmax saturates is found out: exit code 1."""
    network, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    models.save(models.small(seed=1), other)
    model = models.small(seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    models.save(model, network)
    out = tmp_path / "audit.json"
    words = ["audit", network, "--dataset", "digits", "--n", 60, "--steps", 1, 3, "--eps", "0.1"]
    words += ["--transfer-from", other, "--device", "cpu", "--out", out]
    code = main([str(word) for word in words])
    text = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert code == 1 and written["passed"] is False
    failed = [check["name"] for check in written["checks"] if check["passed"] is False]
    assert "gradient" in failed
    assert "FAILED" in text and all(check["sentence"] in text for check in written["checks"])


def test_the_exit_code_where_nothing_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "net.safetensors"
    models.save(models.small(seed=0), network)
    words = ["audit", network, "--dataset", "digits", "--n", 40, "--steps", 1, 10, "--eps", "0.1"]
    assert main([str(word) for word in [*words, "--device", "cpu"]]) == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out and "skipped" in out


def test_the_command_refuses_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    models.save(models.small(seed=0), network)
    models.save(models.small(3, seed=0), other)
    words = ["audit", network, "--dataset", "digits", "--device", "cpu", "--transfer-from", other]
    assert main([str(word) for word in words]) == 2
    assert "3 input channels" in capsys.readouterr().err
