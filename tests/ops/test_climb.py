"""The climb's kernel, run on a CPU, against plain torch that takes the steps one by one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from support import FLOORS, Pool, block_op, needs_extension
from torch import Tensor

from benchmarks.cases import lay_out
from fastinterp.ops import climb as op
from fastinterp.ops.climb import Climbed, Target
from fastinterp.ops.conv_stack import Convolution
from fastinterp.ops.conv_stack import reference as maps_of

pytestmark = needs_extension

# Channels of the images, their size, and rows (filters, kernel, stride, padding: top, bottom, left,
# right).
SMALL = (1, (28, 28), [(16, (4, 4), 2, (1, 1, 1, 1)), (32, (4, 4), 2, (1, 1, 1, 1)),
                       (10, (7, 7), 1, (3, 3, 3, 3))])  # fmt: skip
SMALL_LOGITS = (1, (28, 28), [*SMALL[2][:2], (10, (7, 7), 1, (0, 0, 0, 0))])
ODD = [
    (3, (13, 9), [(16, (4, 4), 2, (1, 1, 1, 2)), (20, (4, 4), 2, (1, 2, 1, 1)),
                  (11, (7, 7), 1, (3, 3, 3, 3))]),
    (1, (9, 11), [(4, (3, 3), 2, (1, 1, 1, 1))]),
    (3, (12, 17), [(5, (3, 2), 1, (1, 1, 1, 0)), (7, (5, 3), 3, (1, 2, 0, 1)),
                   (3, (2, 2), 1, (0, 1, 1, 0))]),
    (4, (8, 7), [(9, (1, 1), 2, (0, 0, 0, 0)), (33, (3, 3), 2, (1, 1, 1, 1)),
                 (40, (3, 3), 3, (1, 2, 2, 1))]),
    (1, (8, 8), [(17, (3, 3), 1, (1, 1, 1, 1)), (8, (2, 2), 4, (0, 0, 0, 0)),
                 (10, (2, 2), 1, (0, 0, 0, 0))]),  # windows leave gaps; one position
    (2, (6, 7), [(3, (2, 3), 2, (2, 2, 3, 3)), (5, (4, 2), 1, (4, 3, 2, 2))]),  # padding alone
    (12, (5, 4), [(260, (1, 2), 1, (0, 0, 1, 0)), (2, (3, 3), 1, (1, 1, 1, 1))]),  # two passes
]  # fmt: skip
CASES = [SMALL, SMALL_LOGITS, *ODD]
TERMS = [
    {"cross_entropy": 1.0},
    {"cross_entropy": -1.0},
    {"kl": 1.0},
    {"discrepancy": 1.0},
    {"discrepancy": 49.0, "reduction": "1-class"},
    {"cross_entropy": 1.0, "kl": 0.5, "discrepancy": 0.98},
]
EPS, STEP = 0.3, 0.1
SEEDS = int(os.environ.get("FASTINTERP_SEEDS", "3"))


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "_native", block_op)


class Problem:
    """A stack with random weights, images, and what to climb, in float64."""

    def __init__(self, case, terms: dict, images: int = 2) -> None:
        channels, size, rows = case
        self.x = torch.rand(images, channels, *size, dtype=torch.float64)
        self.draws = torch.rand_like(self.x)
        self.convolutions = []
        for filters, kernel, stride, padding in rows:
            weight = torch.randn(filters, channels, *kernel, dtype=torch.float64)
            weight *= 1.5 / weight[0].numel() ** 0.5
            bias = torch.randn(filters, dtype=torch.float64) / 4
            self.convolutions.append(Convolution(weight, bias, stride, padding))
            channels = filters
        maps = maps_of(self.x, self.convolutions)
        bias = torch.randn(channels, dtype=torch.float64) / 4
        log_p = torch.log_softmax(maps.mean(dim=(2, 3)) + bias, dim=1)
        labels = torch.randint(channels, (images,))
        self.target = Target(labels, bias, maps=maps, log_p=log_p, **terms)

    def to(self, dtype: torch.dtype) -> Problem:
        other = object.__new__(Problem)
        other.x, other.draws = self.x.to(dtype), self.draws.to(dtype)
        other.convolutions = [
            c._replace(weight=c.weight.to(dtype), bias=c.bias.to(dtype)) for c in self.convolutions
        ]
        changed = {name: getattr(self.target, name).to(dtype) for name in ("bias", "maps", "log_p")}
        other.target = replace(self.target, **changed)
        return other

    def cuda(self) -> Problem:
        other = self.to(torch.float32)
        other.x, other.draws = self.x.cuda(), self.draws.cuda()
        other.convolutions = [
            c._replace(weight=c.weight.cuda(), bias=c.bias.cuda()) for c in self.convolutions
        ]
        tensors = {name: getattr(self.target, name) for name in ("bias", "maps", "log_p", "labels")}
        other.target = replace(self.target, **{name: t.cuda() for name, t in tensors.items()})
        return other

    def run(self, function=None, steps: int = 1, **changes) -> Climbed:
        arguments = {"eps": EPS, "step_size": STEP, "drawn": True} | changes
        function = function or op.native
        range_ = {"lower": 0.0, "upper": 1.0} if function is op.native else {}
        return function(
            self.x, self.draws, self.convolutions, self.target, steps=steps, **range_, **arguments
        )


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradient_keep_the_error_rule(case, terms: dict) -> None:
    pool = Pool()
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        exact = Problem(case, terms, images=8 if case in ODD else 2)
        # One start, rounded, for all three.
        exact.draws = (exact.x + EPS * (2 * exact.draws - 1)).clamp(0, 1).float().double()
        single = exact.to(torch.float32)
        ours, theirs, truth = (
            problem.run(function, drawn=False)
            for problem, function in ((single, None), (single, op.reference), (exact, op.reference))
        )
        for name in ("value", "grad"):
            found, plain, expected = (getattr(result, name) for result in (ours, theirs, truth))
            assert found.shape == expected.shape and found.dtype == torch.float32
            pool.add(name, found, plain, expected)
        assert_same_steps(ours.x_adv, truth.x_adv.float(), truth.grad)
    pool.check(FLOORS[torch.float32])


def assert_same_steps(ours: Tensor, theirs: Tensor, grad: Tensor) -> None:
    """Equal to rounding, but where the sign of a gradient is a matter of rounding."""
    clear = grad.abs() > 1e-4 * grad.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-6)


@pytest.mark.parametrize("terms", [TERMS[0], TERMS[2], TERMS[3], TERMS[5]], ids=str)
@pytest.mark.parametrize("case", [SMALL, SMALL_LOGITS, ODD[0], ODD[2]], ids=str)
def test_a_climb_is_that_of_single_steps(case, terms: dict) -> None:
    problem = Problem(case, terms).to(torch.float32)
    whole, steps = problem.run(steps=6), 6
    # The same kernel, a step at a time, and plain torch.
    at = problem.run(steps=0).x_adv
    plain = problem.run(op.reference, steps=steps)
    for _ in range(steps):
        problem.draws = at
        one = problem.run(drawn=False)
        at = one.x_adv
    for a, b in zip(whole, one, strict=True):
        assert torch.equal(a, b)
    assert whole.x_adv.min() >= 0 and whole.x_adv.max() <= 1
    assert (whole.x_adv - problem.x).abs().max() <= EPS + 1e-6
    # A sign that rounding turns moves one pixel elsewhere, and the later steps of all a little.
    agree = (whole.x_adv - plain.x_adv).abs() < 1e-5
    assert agree.double().mean() > 0.98
    torch.testing.assert_close(whole.value, plain.value, rtol=1e-2, atol=1e-3)


def test_results_repeat_and_do_not_depend_on_the_batch() -> None:
    problem = Problem(SMALL, TERMS[5], images=3).to(torch.float32)
    whole = problem.run(steps=2)
    assert all(map(torch.equal, whole, problem.run(steps=2)))
    alone = problem.to(torch.float32)
    alone.x, alone.draws = problem.x[1:2], problem.draws[1:2]
    target = problem.target
    alone.target = replace(
        target, labels=target.labels[1:2], maps=target.maps[1:2], log_p=target.log_p[1:2]
    )
    for one, all_ in zip(alone.run(steps=2), whole, strict=True):
        assert torch.equal(one, all_[1:2])
    alone.x, alone.draws = problem.x[:0], problem.draws[:0]
    alone.target = replace(
        target, labels=target.labels[:0], maps=target.maps[:0], log_p=target.log_p[:0]
    )
    for none, some in zip(alone.run(steps=2), whole, strict=True):
        assert none.shape == (0, *some.shape[1:])


@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
def test_layouts_and_radii_of_tensors(layout: str) -> None:
    problem = Problem(ODD[0], TERMS[0]).to(torch.float32)
    eps, step_size = torch.tensor([0.1, 0.3]), torch.tensor([0.02, 0.1])
    expected = problem.run(steps=2, eps=eps, step_size=step_size)
    for row in range(2):
        numbers = {"eps": float(eps[row]), "step_size": float(step_size[row])}
        found = problem.run(steps=2, **numbers)
        assert torch.equal(found.x_adv[row], expected.x_adv[row])
    problem.x, problem.draws = (lay_out(t, layout) for t in (problem.x, problem.draws))
    found = problem.run(steps=2, eps=eps, step_size=step_size)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert found.x_adv.stride() == torch.empty_like(problem.x).stride()


def test_what_is_not_a_number_shows() -> None:
    problem = Problem(ODD[0], TERMS[5], images=4).to(torch.float32)
    problem.x[1, 0, 5, 5] = torch.nan
    problem.target.labels[2] = 11
    problem.target.labels[3] = -1
    found = problem.run(steps=2)
    bad = torch.tensor([False, True, True, True])
    assert torch.equal(found.value.isnan(), bad)
    assert torch.equal(found.grad.flatten(1).isnan().all(dim=1), bad)
    negative = problem.run(steps=1, eps=-1.0)
    assert negative.x_adv.isnan().all()


def test_saturated_softmax_still_climbs() -> None:
    problem = Problem(SMALL, TERMS[0])
    problem.target = replace(problem.target, labels=problem.target.labels * 0)
    problem.target.bias[0] = 20.0  # float32 rounds the probability of class 0 to 1
    found = problem.to(torch.float32).run()
    truth = problem.run(op.reference)
    torch.testing.assert_close(found.grad.double(), truth.grad, rtol=1e-3, atol=0)
    problem.target.bias[0] = -2000.0
    found = problem.to(torch.float32).run()
    assert found.value.isfinite().all() and found.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        ({"maps": torch.ones(2, 11, 4, 4)}, "sizes of the last"),
        ({"kl": 1.0, "log_p": None}, "log_p"),
        ({"bias": torch.ones(4)}, "sizes of the last"),
    ],
    ids=["labels", "maps", "log_p", "bias"],
)
def test_targets_that_do_not_fit_are_refused(change: dict, words: str) -> None:
    problem = Problem(ODD[0], TERMS[3]).to(torch.float32)
    problem.target = replace(problem.target, **change)
    with pytest.raises(RuntimeError, match=words):
        problem.run()


def test_layers_that_do_not_fit_are_refused() -> None:
    problem = Problem(ODD[0], TERMS[0]).to(torch.float32)
    first, *others = problem.convolutions
    for wrong, words in (
        ([first, first], "as many channels"),
        ([first._replace(stride=0), *others], "positive"),
        ([first._replace(bias=first.bias[:3]), *others], "biases"),
        ([first._replace(padding=(0, 0, 0, 0), weight=torch.ones(16, 3, 20, 4))], "larger"),
    ):
        problem.convolutions = wrong
        with pytest.raises(RuntimeError, match=words):
            problem.run()


def test_networks_that_do_not_fit_into_shared_memory_are_known() -> None:
    problem = Problem(SMALL, TERMS[0], images=1).to(torch.float32)
    assert op.fits(problem.x, problem.convolutions)
    *below, last = problem.convolutions
    wide = last._replace(weight=torch.ones(100, 32, 7, 7), bias=torch.ones(100))
    assert not op.fits(problem.x, [*below, wide])
    assert not op.fits(problem.x, [below[0]._replace(pool=2)])
    assert not op.fits(problem.x, problem.convolutions * 3)
    assert not op.available(problem.x)  # no GPU


def test_elsewhere_the_reference_serves() -> None:
    problem = Problem(ODD[1], TERMS[0])
    found, expected = problem.run(op.climb, steps=2), problem.run(op.reference, steps=2)
    assert all(map(torch.equal, found, expected))


@pytest.mark.cuda
@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_a_gpu(case, terms: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    exact = Problem(case, terms, images=8)
    single = exact.to(torch.float32)
    found = single.cuda().run(op.climb, steps=1)
    expected = single.run(op.reference, steps=1)
    assert op.available(single.cuda().x)
    torch.testing.assert_close(found.value.cpu(), expected.value, rtol=1e-4, atol=1e-5)
    error = (found.grad.cpu() - expected.grad).norm() / expected.grad.norm()
    assert error < 1e-3
    again = single.cuda().run(op.climb, steps=1)
    assert all(map(torch.equal, found, again))
