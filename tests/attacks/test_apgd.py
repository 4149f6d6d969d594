"""APGD as users call it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import APGD, DLR, PGD, CrossEntropy, Discrepancy, L1Ball, Margin, Outputs

EPS = {"linf": 0.15, "l2": 0.9, "l1": 2.5}
NORMS = list(EPS)


@pytest.fixture
def bent(make_tiny) -> nn.Module:
    """A network on which fixed steps overshoot."""
    model = make_tiny()
    with torch.no_grad():
        model.conv.weight *= 8
    return model


def size(delta: Tensor, norm: str) -> Tensor:
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)


def margin(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return Margin().prepare(Outputs(model, x_adv), y)(Outputs(model, x_adv))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keep", ["last", "best", "first_fooled"])
@pytest.mark.parametrize("random_start", [True, False])
def test_it_stays_in_the_ball_and_the_range(make_tiny, batch, norm, keep, random_start) -> None:
    model, (x, _) = make_tiny(), batch
    x = (1.4 * x - 0.2).clamp(0, 1)  # many pixels at an end of the range
    y = model(x).argmax(1)
    eps = torch.linspace(0, 2 * EPS[norm], 7, dtype=torch.float64)
    attack = APGD(model, eps, 20, norm, random_start, keep=keep)
    x_adv = attack(x, y, generator=torch.Generator().manual_seed(0))
    assert (size(x_adv - x, norm) <= eps * (1 + 1e-12) + 1e-12).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert torch.equal(x_adv[0], x[0])
    assert not x_adv.requires_grad


@pytest.mark.parametrize("norm", NORMS)
def test_it_shortens_steps_that_are_too_long(bent, batch, norm: str) -> None:
    x, y = batch[0], bent(batch[0]).argmax(1)
    settings = {"objective": Margin(), "keep": "best"}
    first_step = EPS[norm] * (1 if norm == "l1" else 2)
    fixed = PGD(bent, EPS[norm], first_step, 40, norm, **settings)(x, y)
    chosen = APGD(bent, EPS[norm], 40, norm, random_start=False, **settings)(x, y)
    gain = margin(bent, chosen, y) - margin(bent, fixed, y)
    assert (gain >= -1e-12).all() and (gain > 0).any()  # some linf steps end in the same corner


@pytest.mark.parametrize("norm", NORMS)
def test_images_that_leave_early_get_the_same_verdicts(bent, batch, norm: str) -> None:
    x, y = batch[0], bent(batch[0]).argmax(1)
    seeds = list(range(7))

    def verdicts(**settings: object) -> list[bool]:
        attack = APGD(bent, EPS[norm], 40, norm, objective=Margin(), **settings)
        return (bent(attack(x, y, seeds=seeds)).argmax(1) != y).tolist()

    assert verdicts(keep="best") == verdicts(keep="first_fooled")  # the margin is the verdict
    assert 0 < sum(verdicts()) < 7


@pytest.mark.parametrize("attack", [APGD, PGD])
@pytest.mark.parametrize("norm", NORMS)
def test_seeds_make_an_image_independent_of_its_batch(bent, batch, attack, norm: str) -> None:
    x, y = batch[0], bent(batch[0]).argmax(1)
    seeds = [5, 6, 7, 8, 9, 10, 11]
    run = attack(
        bent, EPS[norm] / 2, steps=6, norm=norm, random_start=True, restarts=3, objective=Margin()
    )
    together = run(x, y, seeds=seeds)
    rows = [4, 1]
    some = run(x[rows], y[rows], seeds=[seeds[row] for row in rows])
    assert torch.allclose(some, together[rows], rtol=0, atol=1e-9)
    assert torch.equal(run(x, y, torch.Generator(), torch.tensor(seeds)), together)
    assert not torch.allclose(run(x, y, seeds=[seed + 1 for seed in seeds]), together)


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_never_help_the_defender(bent, batch, norm: str) -> None:
    x, y = batch[0], bent(batch[0]).argmax(1)
    values = []
    for restarts in (1, 4):
        attack = APGD(bent, EPS[norm], 8, norm, restarts=restarts, objective=Margin(), keep="best")
        values.append(margin(bent, attack(x, y, seeds=range(7)), y))
    assert (values[1] >= values[0]).all() or (values[1] > 0).all()


def test_l1_searches_three_balls(make_tiny, batch) -> None:
    model, (x, y) = make_tiny(), batch
    seen: list[tuple[float, float]] = []

    def recording(z: Tensor) -> Tensor:
        seen.append(float(size(z.detach() - x, "l1").max()))
        return model(z)

    APGD(recording, 1.0, 20, "l1", keep="last")(x, y, generator=torch.Generator().manual_seed(0))
    steps = seen[-(6 + 1 + 6 + 1 + 8) :]  # the best of a search is found by one pass more
    bounds = [3.0] * 7 + [2.0] * 7 + [1.0] * 8
    assert all(step <= bound + 1e-9 for step, bound in zip(steps, bounds, strict=True))
    assert max(steps[:7]) > 2 and max(steps[7:14]) > 1


class FlatNearby(nn.Module):
    """Two classes; their logits change only where an image's sum is far from `middle`."""

    def __init__(self, middle: float, width: float) -> None:
        super().__init__()
        self.middle, self.width = middle, width

    def forward(self, images: Tensor) -> Tensor:
        change = torch.relu((images.flatten(1).sum(1) - self.middle).abs() - self.width)
        return torch.stack([torch.full_like(change, 0.01), change], dim=1)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_wider_balls_find_what_a_flat_neighbourhood_hides(norm: str) -> None:
    x = torch.full((16, 1, 8, 8), 0.5, dtype=torch.float64)
    y = torch.zeros(16, dtype=torch.int64)
    longest = {"l2": 8.0, "l1": 1.0}[norm]  # the sum changes by so many times eps at most
    model = FlatNearby(32.0, 0.6 * longest * 0.25)
    found = {}
    for radii in ((), (10, 6, 3, 1.5)):
        attack = APGD(model, 0.25, 100, norm, radii=radii)
        x_adv = attack(x, y, seeds=range(16))
        assert (size(x_adv - x, norm) <= 0.25 * (1 + 1e-12)).all()
        found[radii] = int((model(x_adv).argmax(1) != y).sum())
    assert found[()] == 0
    assert found[10, 6, 3, 1.5] >= 8


def test_radii_of_the_paper_are_the_default_in_l1(bent, batch) -> None:
    x, y = batch[0], bent(batch[0]).argmax(1)
    seeds = range(len(x))
    found = [
        APGD(bent, 1.0, 20, "l1", **given)(x, y, seeds=seeds) for given in ({}, {"radii": (3, 2)})
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("norm", NORMS)
def test_few_steps_and_no_images(make_tiny, batch, norm: str) -> None:
    model, (x, y) = make_tiny(), batch
    for steps in range(4):
        APGD(model, EPS[norm], steps, norm)(x, y)
    assert torch.equal(APGD(model, EPS[norm], 0, "linf", random_start=False)(x, y), x)
    assert APGD(model, EPS[norm], 5, norm)(x[:0], y[:0], seeds=[]).shape == (0, 1, 6, 6)


def test_targets_and_other_objectives(bent, batch) -> None:
    x = batch[0]
    targets = (bent(x).argmax(1) + 1) % 4
    for objective in (None, Margin(targeted=True), DLR(targeted=True)):
        x_adv = APGD(bent, 0.4, 30, targeted=True, objective=objective)(x, targets)
        assert (bent(x_adv).argmax(1) == targets).any()
    y = bent(x).argmax(1)
    change = Discrepancy().prepare(Outputs(bent, x).detach(), y)
    x_adv = APGD(bent, 0.1, 20, objective=Discrepancy(), keep="best")(x, y)
    assert (change(Outputs(bent, x_adv)) > 0).all()
    with pytest.raises(InputError, match="random_start=True"):
        APGD(bent, objective=Discrepancy(), random_start=False)


@pytest.mark.parametrize("norm", NORMS)
def test_float32_images_and_networks(make_tiny, batch, norm: str) -> None:
    model, x, y = make_tiny(torch.float32), batch[0].float(), batch[1]
    x_adv = APGD(model, EPS[norm], 25, norm, keep="best")(x, y, seeds=range(7))
    assert x_adv.dtype == torch.float32
    assert (size(x_adv - x, norm) <= EPS[norm] * (1 + 1e-5)).all()
    wide = APGD(make_tiny(), EPS[norm], 25, norm, keep="best")(x.double(), y, seeds=range(7))
    value = CrossEntropy().prepare(Outputs(model, x), y)
    assert torch.allclose(
        value(Outputs(model, x_adv)), value(Outputs(model, wide.float())), atol=0.05
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l3"}, "APGD: norm must be one of"),
        ({"steps": -1}, "APGD: steps must be at least 0"),
        ({"restarts": 2, "random_start": False}, "APGD: every restart from x"),
        ({"eps": -1.0}, "eps must be"),
        ({"keep": "worst"}, "keep must be one of"),
        ({"n_iter": 10}, "APGD has no setting 'n_iter'; did you mean 'steps'"),
        ({"loss": "ce"}, "did you mean 'objective'"),
        ({"radii": (2, 3)}, "APGD: radii must fall and lie above 1"),
        ({"radii": (2, 1)}, "APGD: radii must fall and lie above 1"),
    ],
)
def test_bad_settings_are_refused(make_tiny, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        APGD(make_tiny(), **settings)


@pytest.mark.parametrize("seeds", [[1, 2], "abcdefg", [1] * 6 + [2**32], [1] * 6 + [-1], [0.5] * 7])
def test_bad_seeds_are_refused(make_tiny, batch, seeds) -> None:
    with pytest.raises(InputError, match=r"APGD: (a seed|seeds) must"):
        APGD(make_tiny(), 0.1, 2)(*batch, seeds=seeds)


def test_its_repr_names_its_climber(make_tiny) -> None:
    assert "climber=HalvingSteps()" in repr(APGD(make_tiny()))
    assert "climber" not in repr(PGD(make_tiny()))
    assert isinstance(APGD(make_tiny(), norm="l1").threat, L1Ball)
