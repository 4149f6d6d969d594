"""AAI against a program for one image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastinterp import InputError, data, models
from fastinterp.attacks import AAI
from fastinterp.evaluation import paper_selection
from fastinterp.evaluation.aai_scores import aai_scores
from fastinterp.interpreters import CAM, GradCAMPlusPlus, IntegratedGradients, Repr
from fastinterp.interpreters.distance import interpretability_discrepancy

EPS = 0.25


def one_image(
    model, x: Tensor, y: int, start: Tensor, kind: str, k: int, hinge: float, steps: int
) -> Tensor:
    """Eq. (7), with the CAM of eq. (1) written out."""

    def cam(features: Tensor) -> Tensor:
        return torch.einsum("k,khw->hw", model.weight[y], features[0]).flatten() / 9

    clean = cam(model.features(x[None])).detach()
    held = int(model(x[None]).argmax())
    brightest = clean.argsort(descending=True)[:k]
    z = start.clone()
    for _ in range(steps):
        z.requires_grad_()
        features = model.features(z[None])
        logits = model.logits(features)[0]
        loss = (
            cam(features)[brightest].sum()
            if kind == "topk"
            else -(cam(features) - clean).abs().sum()
        )
        lead = max(logits[i] for i in range(4) if i != held) - logits[held]
        loss = loss + hinge * max(lead, torch.zeros((), dtype=z.dtype))
        (grad,) = torch.autograd.grad(loss, z)
        z = (z.detach() - 0.03 * grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return z


@pytest.mark.parametrize("kind", ["topk", "discrepancy"])
@pytest.mark.parametrize("hinge", [0.0, 3.0])
def test_against_a_program_for_one_image(make_tiny, batch, kind, hinge) -> None:
    model, (x, y) = make_tiny(), batch
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype) * 2 - 1
    start = (x + EPS * noise).clamp(0, 1)
    attack = AAI(model, CAM(model), EPS, 0.03, 12, kind, k=3, hinge=hinge, keep="last")
    x_adv = attack(x, y, start=start)
    expected = [
        one_image(model, *each, kind, 3, hinge, 12)
        for each in zip(x, y.tolist(), start, strict=True)
    ]
    assert torch.allclose(x_adv, torch.stack(expected), rtol=0, atol=1e-12)
    assert not torch.equal(x_adv, start) and torch.equal(start, (x + EPS * noise).clamp(0, 1))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("make", [CAM, GradCAMPlusPlus, lambda m: IntegratedGradients(m, 3)])
def test_dims_what_was_brightest(make_tiny, batch, norm, make) -> None:
    model, (x, y) = make_tiny(), batch
    eps = {"linf": 0.2, "l2": 1.0, "l1": 5.0}[norm]
    interpreter = make(model)
    settings = {"norm": norm, "random_start": False, "hinge": 0.0, "keep": "last"}
    attack = AAI(model, interpreter, eps, eps / 10, 15, k=2, **settings)
    x_adv = attack(x, y)
    before, after = (interpreter(each, y).flatten(1).detach() for each in (x, x_adv))
    top = before.topk(2).indices
    assert (after.gather(1, top).sum(1) < before.gather(1, top).sum(1)).all()


def test_discrepancy_grows(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    attack = AAI(model, CAM(model), 0.2, 0.03, 15, "discrepancy", p=2, hinge=0.0)
    x_adv = attack(x, y, torch.Generator().manual_seed(0))
    random = AAI(model, CAM(model), 0.2, 0.03, 0, "discrepancy", p=2, hinge=0.0)(
        x, y, torch.Generator().manual_seed(0)
    )
    moved, at_random = (
        interpretability_discrepancy(CAM(model), x, each, y, classes="1-class", p=2)
        for each in (x_adv, random)
    )
    assert (moved > at_random).all() and (at_random > 0).all()


@pytest.mark.parametrize("kind", ["topk", "discrepancy"])
def test_the_prediction_stays(make_tiny, batch, kind) -> None:
    """Also where it is wrong; and without the hinge it does not."""
    model, (x, y) = make_tiny(), batch
    with torch.no_grad():
        model.classifier.bias -= model(x).mean(0)
    predicted = model(x).argmax(1)
    assert 0 < int((predicted == y).sum()) < len(y)

    def after(**how) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return AAI(model, CAM(model), 0.5, 0.05, 40, kind, 3, generator=generator, **how)(x, y)

    kept = after()
    assert torch.equal(model(kept).argmax(1), predicted)
    assert (kept != x).flatten(1).any(1).sum() >= 5  # x itself is the answer where all else fails
    assert (model(after(hinge=0.0, keep="last")).argmax(1) != predicted).any()


def test_predictions_of_mnist_stay(shared: Path) -> None:
    """The images that were right at the start are right after it, and their maps are not the same:
    without the hinge a third of them is lost."""
    mnist = data.load("mnist", shared / "data")
    model = models.load(shared / "networks" / "mnist_smallgap_normal_100.pkl")
    chosen, _ = paper_selection(len(mnist), 40)
    x, y = mnist.float(chosen), mnist.labels[chosen]
    right = model(x).argmax(1) == y
    attack = AAI(model, CAM(model), 0.1, steps=60, generator=torch.Generator().manual_seed(0))
    scores = aai_scores(attack, x, y)
    assert right.sum() == 40 and scores.unchanged[right].all()
    assert scores.kendall_tau.mean() < 0.9


def test_starts(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    attack = AAI(model, CAM(model), 0.2, 0.03, 5, generator=torch.Generator().manual_seed(1))
    first, again = attack(x, y), attack(x, y, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, attack(x, y))  # the generator has gone on
    assert torch.equal(
        attack(x, y, start=x), AAI(model, CAM(model), 0.2, 0.03, 5, random_start=False)(x, y)
    )
    best = AAI(model, CAM(model), 0.2, 0.03, 5, keep="best")
    with torch.inference_mode():
        inside = best(x.clone(), y.clone(), start=x.clone())
    assert torch.equal(inside, best(x, y, start=x))
    assert attack(x[:0], y[:0]).shape == (0, 1, 6, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "l3"},
        {"kind": "most"},
        {"steps": -1},
        {"k": 0},
        {"p": 3},
        {"hinge": -1.0},
        {"hinge": "a"},
        {"steps": 1.5},
        {"keep": "first_fooled"},
        {"keep": "worst"},
        {"step_size": -0.1},
    ],
)
def test_refused(make_tiny, settings) -> None:
    model = make_tiny()
    with pytest.raises(InputError):
        AAI(model, CAM(model), 0.1, **settings)


def test_refused_calls(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    with pytest.raises(InputError, match="the interpreter must explain the model"):
        AAI(model, CAM(make_tiny()), 0.1)
    with pytest.raises(InputError, match="at most the 9 positions of a map, got 10"):
        AAI(model, CAM(model), 0.1, k=10)(x, y)
    with pytest.raises(InputError, match="one map for the true class"):
        AAI(model, Repr(model), 0.1)(x, y)
    with pytest.raises(InputError, match="no gradient at x"):
        AAI(model, CAM(model), 0.1, kind="discrepancy", random_start=False)(x, y)
    with pytest.raises(InputError, match="start must be like x"):
        AAI(model, CAM(model), 0.1)(x, y, start=x[:2])
