"""Kendall's tau under AAI: against scipy, and on the authors' networks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fastinterp import InputError, data, models
from fastinterp.attacks import AAI
from fastinterp.evaluation import paper_selection
from fastinterp.evaluation.aai_scores import aai_scores, aai_sweep, paper_noise
from fastinterp.interpreters import CAM


def test_tau_is_scipys_over_images_that_keep_their_prediction(make_problem) -> None:
    from scipy.stats import kendalltau

    model, x, y = make_problem(20)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    model.train()
    (row,) = aai_sweep(
        model, CAM(model), x, y, eps=[0.2], steps=6, step_size=0.05, k=3, noise=noise,
        batch_size=7, progress=False,
    )  # fmt: skip
    assert model.training
    model.eval()
    start = (x + 0.2 * noise).clamp(0, 1)
    x_adv = AAI(model, CAM(model), 0.2, 0.05, 6, k=3, hinge=0.0, keep="last")(x, y, start=start)
    before, after = (CAM(model)(each, y).detach().flatten(1).numpy() for each in (x, x_adv))
    stayed = (model(x).argmax(1) == model(x_adv).argmax(1)).numpy()
    taus = [kendalltau(a, b).statistic for a, b in zip(before, after, strict=True)]
    assert 0 < stayed.sum() < 20
    assert row["kendall_tau"] == pytest.approx(np.array(taus)[stayed].mean(), abs=0.01)
    shares = [
        len({*a.argsort()[-3:]} & {*b.argsort()[-3:]}) / 3
        for a, b in zip(before, after, strict=True)
    ]
    assert row["topk_intersection"] == pytest.approx(np.array(shares)[stayed].mean(), abs=0.01)
    assert row["n_unchanged"] == stayed.sum()
    assert (row["eps"], row["steps"], row["n"]) == (0.2, 6, 20)


def test_no_survivor_is_no_data(make_problem, monkeypatch) -> None:
    model, x, y = make_problem(6)
    answers = iter([torch.zeros(6), torch.ones(6)])
    monkeypatch.setattr("fastinterp.evaluation.aai_scores.predict", lambda model, x: next(answers))
    (row,) = aai_sweep(
        model, CAM(model), x, y, eps=[0.3], steps=2, step_size=0.1, k=2, progress=False
    )
    assert math.isnan(row["kendall_tau"]) and math.isnan(row["topk_intersection"])
    assert row["n_unchanged"] == 0 and row["n"] == 6


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_batches_and_seeds(make_problem, norm) -> None:
    model, x, y = make_problem(9)
    eps = {"linf": [0.05, 0.1], "l2": [0.3, 0.6], "l1": [1.0, 3.0]}[norm]
    settings = {"eps": eps, "steps": 4, "step_size": 0.05, "k": 3, "norm": norm, "progress": False}
    rows = aai_sweep(model, CAM(model), x, y, **settings)
    parts = aai_sweep(model, CAM(model), x, y, batch_size=2, **settings)
    other = aai_sweep(model, CAM(model), x, y, seed=1, **settings)
    for one, two in zip(rows, parts, strict=True):
        assert one["n_unchanged"] == two["n_unchanged"]
        assert one["kendall_tau"] == pytest.approx(two["kendall_tau"], abs=0.02)
    assert [row["kendall_tau"] for row in rows] != [row["kendall_tau"] for row in other]


def test_scores_of_a_batch(make_problem) -> None:
    model, x, y = make_problem(5)
    scores = aai_scores(AAI(model, CAM(model), 0.0, 0.0, 1, k=2), x, y)
    assert torch.equal(scores.kendall_tau, torch.ones(5, dtype=torch.float64))
    assert torch.equal(scores.topk_intersection, torch.ones(5, dtype=torch.float64))
    assert scores.unchanged.all()


def test_paper_noise_is_the_stream_after_the_selection() -> None:
    eps, n, shape = 0.3, 6, (3, 4, 5)
    np.random.seed(99)  # noqa: NPY002
    order = np.random.permutation(50)[:n]  # noqa: NPY002
    offsets = 1 + np.random.randint(9, size=n)  # noqa: NPY002
    start = np.random.uniform(-eps, eps, (n, 4, 5, 3))  # noqa: NPY002
    indices, found = paper_selection(50, n)
    assert indices.tolist() == order.tolist() and found.tolist() == offsets.tolist()
    noise = paper_noise(50, n, shape)
    assert np.allclose(eps * noise.permute(0, 2, 3, 1).numpy(), start, rtol=0, atol=1e-15)


def test_refused(make_problem) -> None:
    model, x, y = make_problem(5)
    interpreter = CAM(model)
    with pytest.raises(InputError, match="noise is for linf"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], noise=x[:2])
    with pytest.raises(InputError, match="noise is for linf"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], noise=x, norm="l2")
    with pytest.raises(InputError, match="no images"):
        aai_sweep(model, interpreter, x[:0], y[:0], eps=[0.1])
    with pytest.raises(InputError, match="norm must be one of"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], norm="l3")
    with pytest.raises(InputError, match="noise must be a tensor, got str"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], noise="a")
    with pytest.raises(InputError, match=r"steps must be a whole number, got \[1\]"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], steps=[1])
    with pytest.raises(InputError, match="eps must be a number or a list"):
        aai_sweep(model, interpreter, x, y, eps="0.1")
    with pytest.raises(InputError, match="batch_size must be a whole number"):
        aai_sweep(model, interpreter, x, y, eps=[0.1], batch_size="4")
    how = {"steps": 1, "seed": 0, "progress": False}
    one, several = (aai_sweep(model, interpreter, x, y, eps=e, **how) for e in (0.1, [0.1]))
    assert one == several
    with pytest.raises(InputError, match="pixels must lie in"):
        aai_sweep(model, interpreter, 2 * x, y, eps=[0.1])


def test_int_keeps_its_maps(shared: Path) -> None:
    """Table 2's finding, on 16 images and a quarter of the steps."""
    mnist = data.load("mnist", shared / "data")
    chosen, _ = paper_selection(len(mnist))
    noise = paper_noise(len(mnist), len(chosen), (1, 28, 28))[:16]
    x, y = mnist.float(chosen[:16]), mnist.labels[chosen[:16]]
    tau, unchanged = {}, {}
    for method in ("normal", "int"):
        model = models.load(shared / "networks" / f"mnist_smallgap_{method}_100.pkl")
        (row,) = aai_sweep(
            model, CAM(model), x, y, eps=[0.1], steps=50, noise=noise, progress=False
        )
        tau[method], unchanged[method] = row["kendall_tau"], row["n_unchanged"]
    assert unchanged["int"] > unchanged["normal"]
    assert tau["int"] > 0.95
    assert tau["normal"] < 0.85
