"""Stability scores, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastinterp import InputError
from fastinterp import evaluation as E
from fastinterp.interpreters import CAM, IntegratedGradients


def samples(n: int = 4, count: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """Clean [n, ...] and perturbed [count, n, ...] values, with exact zeros among the clean."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for name, shape in {"maps": (1, 3, 3), "x": (1, 4, 4), "logits": (5,), "a": (2, 3, 3)}.items():
        clean = torch.randn((n, *shape), generator=generator, dtype=torch.float64)
        clean.flatten()[::7] = 0
        noise = torch.randn((count, n, *shape), generator=generator, dtype=torch.float64)
        found[name] = (clean, clean + 0.1 * noise)
    return found


def norm(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def change(clean: Tensor, moved: Tensor, relative: bool) -> float:
    parts = []
    for a, b in zip(clean.flatten().tolist(), moved.flatten().tolist(), strict=True):
        parts.append((a - b) / (a if a != 0 else 1e-6) if relative else a - b)
    return norm(parts)


def over(measure, *names: str) -> Tensor:
    """measure(clean, moved, ...) for each sample and image -> [S, N]."""
    chosen = [samples()[name] for name in names]
    return torch.tensor(
        [
            [measure(*(v for c, m in chosen for v in (c[i], m[s, i]))) for i in range(4)]
            for s in range(3)
        ],
        dtype=torch.float64,
    )


def test_formulas() -> None:
    (maps, maps_adv), (x, x_adv), (f, f_adv), (a, a_adv) = samples().values()
    moved = over(lambda c, m: change(c, m, False) / norm(c.flatten().tolist()), "maps")
    expected = {
        "max_sensitivity": moved.amax(0),
        "average_sensitivity": moved.mean(0),
        "local_lipschitz": over(
            lambda c, m, x, z: change(c, m, False) / change(x, z, False), "maps", "x"
        ).amax(0),
        "relative_input_stability": over(
            lambda c, m, x, z: change(c, m, True) / max(change(x, z, True), 1e-6), "maps", "x"
        ).amax(0),
        "relative_output_stability": over(
            lambda c, m, x, z: change(c, m, True) / max(change(x, z, False), 1e-6), "maps", "logits"
        ).amax(0),
        "relative_representation_stability": over(
            lambda c, m, x, z: change(c, m, True) / max(change(x, z, True), 1e-6), "maps", "a"
        ).amax(0),
    }
    found = {
        "max_sensitivity": E.max_sensitivity(maps, maps_adv),
        "average_sensitivity": E.average_sensitivity(maps, maps_adv),
        "local_lipschitz": E.local_lipschitz(maps, maps_adv, x, x_adv),
        "relative_input_stability": E.relative_input_stability(maps, maps_adv, x, x_adv),
        "relative_output_stability": E.relative_output_stability(maps, maps_adv, f, f_adv),
        "relative_representation_stability": E.relative_representation_stability(
            maps, maps_adv, a, a_adv
        ),
    }
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-12, atol=0), name


@pytest.mark.parametrize("make", [CAM, lambda m: IntegratedGradients(m, 3)])
def test_stability_of_a_network(make_problem, make) -> None:
    model, x, y = make_problem(9)
    model, x = model.double(), x.double()  # small map values divide: float32 shows its last bits
    how = {"eps": 0.3, "samples": 6, "progress": False}
    model.train()
    found = E.stability(model, make(model), x, y, **how)
    assert model.training
    parts = E.stability(model, make(model), x, y, batch_size=2, **how)
    for one, two in zip(found, parts, strict=True):
        assert one.shape == (9,) and torch.allclose(one, two, rtol=1e-9, equal_nan=True)
    other = E.stability(model, make(model), x, y, seed=1, **how)
    assert not torch.equal(found.max_sensitivity, other.max_sensitivity)
    some = found.kept > 0
    assert (found.kept < 6).any() and some.any()
    assert (found.average_sensitivity <= found.max_sensitivity)[some].all()
    less = E.stability(model, make(model), x, y, eps=0.03, samples=6, progress=False)
    assert less.max_sensitivity.nanmean() < found.max_sensitivity.nanmean()
    assert (less.kept >= found.kept).all()


def test_without_a_sample_that_keeps_the_prediction(make_problem) -> None:
    """No score, and one sample is its own maximum and mean."""
    model, x, y = make_problem(40)
    found = E.stability(model, CAM(model), x, y, eps=0.5, samples=1, progress=False)
    lost = found.kept == 0
    assert lost.any() and not lost.all()
    for each in found[:6]:
        assert torch.equal(each.isnan(), lost)
    assert torch.equal(found.max_sensitivity[~lost], found.average_sensitivity[~lost])


def test_refused(make_problem) -> None:
    model, x, y = make_problem(3)
    maps = torch.rand(3, 1, 2, 2)
    with pytest.raises(InputError, match="maps must be"):
        E.max_sensitivity(maps, maps)
    with pytest.raises(InputError, match="x must be"):
        E.local_lipschitz(maps, maps[None], x, x)
    with pytest.raises(InputError, match="eps must"):
        E.stability(model, CAM(model), x, y, eps=0.0)
    with pytest.raises(InputError, match="samples must"):
        E.stability(model, CAM(model), x, y, samples=0)
