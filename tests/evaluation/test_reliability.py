"""Networks that make a figure under attack doubtful are marked, and random ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes import FAKES, RANDOM, Fake, Noise
from torch import Tensor

from fastinterp import InputError, models
from fastinterp.attacks import APGD, Margin, Square
from fastinterp.cli import main
from fastinterp.data import load
from fastinterp.evaluation import (
    UnreliableFigures,
    accuracy_table,
    audit,
    footnotes,
    paper_selection,
    sweep,
)
from fastinterp.evaluation.measuring import accuracy_of, misclassified
from fastinterp.evaluation.reliability import FLAT, MISLED, look_for_signs
from fastinterp.models import GapClassifier
from fastinterp.training import NormalTrainer

EPS = 0.15
FLAT_ONES = {
    "median, no gradient",
    "8 grey levels",
    "JPEG rounding",
    "tanh of 5 x logits",
    "stored images",
}
MISLEADING = {"reversed gradient", "sine", "scrambled gradient", "anti-adversarial"}
SETTINGS = {"eps": [EPS], "steps": [2], "progress": False}


class InPlace(Fake):
    """It writes into the images that it is given."""

    def before(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.mul_(0.9)
        return x


@pytest.fixture(scope="module")
def digits() -> tuple[GapClassifier, Tensor, Tensor, Tensor]:
    """A small network, test images, their classes, and training images."""
    train, test = load("digits", split="train"), load("digits")
    torch.manual_seed(0)
    model = models.small(seed=0)
    NormalTrainer(model, lr=3e-3).fit(train, epochs=2, batch_size=50, progress=False)
    return model.eval(), test.float()[:40], test.labels[:40], train.float()[:500]


@pytest.mark.parametrize("name", FAKES)
def test_each_fake_shows_its_sign(digits, name: str) -> None:
    model, x, y, stored = digits
    signs = look_for_signs(FAKES[name](model, stored).eval(), x, y, "linf", EPS, 100)
    assert (signs.flat > FLAT) == (name in FLAT_ONES)
    assert (signs.misled > MISLED) == (name in MISLEADING)
    assert (signs.random == 1) == (name in RANDOM)
    assert (signs.neighbours == 1) == (name == "batch dependence")
    assert signs.in_place == 0


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 1.5), ("l1", 10.0)])
def test_an_honest_network_shows_none(digits, norm: str, eps: float) -> None:
    model, x, y, _ = digits
    signs = look_for_signs(model, x, y, norm, eps, 17)
    assert not signs.reasons(), signs


def test_the_authors_networks_show_none(shared: Path) -> None:
    files = [f"mnist_smallgap_{each}_100" for each in ("normal", "adv", "trades", "int", "intadv")]
    files += ["cifar_smallgap_int_200", "cifar_wresnet_int_200"]
    for file in files:
        mnist = file.startswith("mnist")
        test = load("mnist" if mnist else "cifar10", shared / "data")
        chosen, _ = paper_selection(len(test), 60 if mnist else 20)
        model = models.load(shared / "networks" / f"{file}.pkl")
        x, y = test.float(chosen), test.labels[chosen]
        for norm, eps in (("linf", 0.3 if mnist else 8 / 255), ("l2", 1.0), ("l1", 10.0)):
            signs = look_for_signs(model, x, y, norm, eps, 100)
            assert not signs.reasons(), (file, norm, signs)


def test_a_marked_row_keeps_its_figure_and_says_why(digits) -> None:
    model, x, y, stored = digits
    fake = FAKES["8 grey levels"](model, stored).eval()
    with pytest.warns(UnreliableFigures, match="the gradient is zero at") as caught:
        clean, row = sweep(fake, x, y, **SETTINGS | {"eps": [0, EPS]})
    (said,) = [str(one.message) for one in caught if one.category is UnreliableFigures]
    assert "\n" not in said
    assert "potentially_unreliable" not in clean and clean["accuracy"] == row["accuracy"]
    assert row["potentially_unreliable"] == "the gradient is zero at 1.000 of the images"
    _, body = accuracy_table([clean, row])
    assert [line[1].endswith(" !") for line in body] == [False, True]
    assert footnotes([clean, row])[-1] == (
        "! potentially unreliable: the gradient is zero at 1.000 of the images."
    )


def test_dependence_on_the_batch_marks_clean_figures_too(digits) -> None:
    model, x, y, stored = digits
    fake = FAKES["batch dependence"](model, stored).eval()
    with pytest.warns(UnreliableFigures):
        (row,) = sweep(fake, x, y, **SETTINGS | {"eps": [0]})
    assert "other images of the batch" in row["potentially_unreliable"]


def test_a_random_network_is_refused_or_averaged(digits) -> None:
    model, x, y, _ = digits
    noisy = Noise(model).eval()
    settings = SETTINGS | {"protocol": "best", "eps": [0, 0.05]}
    with pytest.raises(InputError, match=r"is random.*samples=20"):
        sweep(noisy, x, y, **settings)
    torch.manual_seed(1)
    rows = sweep(noisy, x, y, **settings, samples=4)
    torch.manual_seed(2)
    assert sweep(noisy, x, y, **settings, samples=4) == rows
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(2)))
    assert all("potentially_unreliable" not in row for row in rows)
    with pytest.raises(InputError, match="samples must be at least 1"):
        sweep(noisy, x, y, **settings, samples=0)


def test_the_papers_figures_of_a_random_network_are_marked_and_stay(digits) -> None:
    """The look at the network draws no random number that the attack would have had."""
    model, x, y, _ = digits
    noisy = Noise(model).eval()
    torch.manual_seed(5)
    with pytest.warns(UnreliableFigures, match="two passes"):
        (row,) = sweep(noisy, x, y, **SETTINGS | {"eps": [0]})
    torch.manual_seed(5)
    assert row["accuracy"] == float((noisy(x).argmax(dim=1) == y).double().mean())


def test_one_sample_of_a_network_that_is_not_random_changes_nothing(digits) -> None:
    model, x, y, _ = digits
    settings = SETTINGS | {"protocol": "best"}
    assert sweep(model, x, y, **settings, samples=1) == sweep(model, x, y, **settings)


def test_a_network_that_changes_its_images_is_refused(digits) -> None:
    model, x, y, _ = digits
    kept = x.clone()
    with pytest.raises(InputError, match=r"x = x\.clone\(\)"):
        sweep(InPlace(model).eval(), x, y, **SETTINGS, protocol="best")
    assert torch.equal(x, kept)


def test_logits_without_any_gradient_are_refused_in_a_sentence(digits) -> None:
    model, x, y, _ = digits

    class Detached(Fake):
        def before(self, x: Tensor) -> Tensor:
            return x.detach()

    with pytest.raises(InputError, match="no gradient by the images"):
        sweep(Detached(model).eval(), x, y, **SETTINGS)


@pytest.mark.parametrize(
    ("name", "norm", "eps", "check"),
    [
        ("scrambled gradient", "linf", EPS, "direction"),
        ("tanh of 5 x logits", "linf", EPS, "black box"),
        ("8 grey levels", "l2", 1.5, "gradient"),
        ("noise", "l2", 1.5, "randomness"),
        ("reversed gradient", "l1", 10.0, "direction"),
        ("batch dependence", "l1", 10.0, "batch"),
    ],
)
def test_the_audit_finds_fakes(digits, name: str, norm: str, eps: float, check: str) -> None:
    model, x, y, stored = digits
    fake = FAKES[name](model, stored).eval()
    checks = audit(fake, x[:10], y[:10], eps=eps, norm=norm, steps=(1, 5), progress=False)
    assert {each.name: each.passed for each in checks}[check] is False, checks


# PGD leaves 0.125 more than Auto-PGD on the digits of this one, no more than on honest networks; of
# MNIST the audit finds it (docs/audit.md).
MISSED = pytest.mark.xfail(strict=True, reason="looks like an honest network on digits")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=MISSED if n == "saturating tanh" else ()) for n in FAKES]
)
def test_the_audit_finds_what_inflates_plain_pgd(digits, name: str) -> None:
    """Square and images made against the undefended network tell what is true."""
    model, x, y, stored = digits
    fake = FAKES[name](model, stored).eval()
    checks = audit(fake, x, y, eps=EPS, steps=(1, 20), progress=False)
    figures = {each.name: each.figures for each in checks}
    plain = figures["more steps"]["20 steps"]
    moved = APGD(model, EPS, 50, objective=Margin(), keep="best")(x, y)
    true = min(
        accuracy_of(misclassified(fake, moved, y)),
        accuracy_of(misclassified(fake, Square(fake, EPS, 1000)(x, y), y)),
    )
    failed = {each.name for each in checks if each.passed is False}
    assert plain <= true + 0.05 or failed, (plain, true)
    assert ("randomness" in failed) == (name in RANDOM)
    assert ("batch" in failed) == (name == "batch dependence")


def test_eval_marks_the_table_and_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, out = tmp_path / "net.safetensors", tmp_path / "rows.json"
    model = models.small(seed=0)
    with torch.no_grad():
        model.layers[1].bias.fill_(-100.0)  # no ReLU behind it is active
    models.save(model, network)
    words = ["eval", network, "--dataset", "digits", "--n", 20, "--eps", 0, "0.1", "--steps", 1]
    assert main([str(word) for word in [*words, "--device", "cpu", "--out", out]]) == 0
    found = capsys.readouterr()
    assert "! potentially unreliable: the gradient is zero at 1.000 of the images." in found.out
    assert "UnreliableFigures" not in found.err
    clean, attacked = json.loads(out.read_text())["rows"]
    assert "potentially_unreliable" not in clean
    assert attacked["potentially_unreliable"] == "the gradient is zero at 1.000 of the images"
