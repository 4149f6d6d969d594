"""Other libraries' attacks find the images that ours do, where no randomness enters."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from fastinterp import PGD, NormalTrainer, data, models
from fastinterp.attacks import APGD, DLR, CrossEntropy
from fastinterp.models import GapClassifier

pytestmark = pytest.mark.interop

Problem = tuple[GapClassifier, Tensor, Tensor]


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A network that has seen digits, and images that it classifies rightly, float64.

    In float64 a gradient's sign does not hang on the order of a sum.
    """
    digits = data.load("digits", split="train")
    model = models.small(1, 10, seed=0)
    NormalTrainer(model, lr=3e-3).fit(
        digits.subset(range(400)), epochs=5, batch_size=50, progress=False
    )
    x, y = digits.float(slice(0, 24)).double(), digits.labels[:24]
    model = model.double().eval()
    right = model(x).argmax(1) == y
    assert right.sum() > 12
    return model, x[right], y[right]


def agree(problem: Problem, ours: Tensor, theirs: Tensor) -> None:
    model, _, y = problem
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert (model(ours).argmax(1) != y).any()  # the attack does something


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "name"), [("linf", "PGD"), ("l2", "PGDL2")])
def test_torchattacks_pgd(problem: Problem, norm: str, name: str, targeted: bool) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = problem
    eps, alpha = {"linf": (0.2, 0.03), "l2": (2.5, 0.4)}[norm]
    settings = {"eps": eps, "alpha": alpha, "steps": 10, "random_start": False}
    if norm == "l2":
        settings["eps_for_division"] = 0  # else gradients shrink by 1e-10 beside their norm
    attack = getattr(torchattacks, name)(model, **settings)
    goal = y
    if targeted:
        goal = (y + 1) % 10
        attack.set_mode_targeted_by_label(quiet=True)
    ours = PGD(model, eps, alpha, 10, norm, targeted=targeted)(x, goal)
    agree(problem, ours, attack(x, goal))


def test_torchattacks_fgsm(problem: Problem) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = problem
    agree(problem, PGD(model, 0.2, 0.2, 1)(x, y), torchattacks.FGSM(model, eps=0.2)(x, y))


@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfPGD"), ("l2", "L2PGD")])
def test_foolbox_pgd(problem: Problem, norm: str, name: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    model, x, y = problem
    eps, alpha = {"linf": (0.2, 0.03), "l2": (2.5, 0.4)}[norm]
    attack = getattr(foolbox.attacks, name)(abs_stepsize=alpha, steps=10, random_start=False)
    theirs, _, fooled = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)
    ours = PGD(model, eps, alpha, 10, norm)(x, y)
    agree(problem, ours, theirs)
    assert torch.equal(model(ours).argmax(1) != y, fooled)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_autoattack_apgd(problem: Problem, norm: str, loss: str) -> None:
    """Both draw their own starts, so that a verdict may differ here and there."""
    base = pytest.importorskip("autoattack.autopgd_base")
    network, x, y = problem
    model, x = deepcopy(network).float(), x.float()
    eps = {"linf": 0.06, "l2": 1.0, "l1": 5.0}[norm]
    theirs = base.APGDAttack(
        model, n_iter=50, norm=norm.capitalize(), eps=eps, loss=loss, use_largereps=norm == "l1"
    ).perturb(x, y)
    objective = {"ce": CrossEntropy(), "dlr": DLR()}[loss]
    ours = APGD(model, eps, 50, norm, objective=objective)(x, y, seeds=range(len(x)))
    fooled, known = (int((model(images).argmax(1) != y).sum()) for images in (ours, theirs))
    assert 0 < known < len(x)
    assert fooled >= known - 1
