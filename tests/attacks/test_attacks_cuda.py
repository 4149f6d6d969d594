"""What only a GPU can show. Skipped, with the reason, where none is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fastinterp.attacks import (
    KL,
    PGD,
    CrossEntropy,
    Discrepancy,
    HalvingSteps,
    L1Ball,
    L2Ball,
    LinfBall,
    SparseSteps,
    ascend,
)
from fastinterp.models import small
from fastinterp.ops import climb

pytestmark = pytest.mark.cuda


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("objective", [CrossEntropy(), CrossEntropy() + Discrepancy()])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_loop_does_not_wait_for_the_gpu(make_tiny, batch, objective, keep: str) -> None:
    model = make_tiny(torch.float32).cuda()
    x, y = batch[0].float().cuda(), batch[1].cuda()
    threat = LinfBall(0.2, 0.05)
    ascend(model, threat, objective, x, y, 2, keep=keep, random_start=True)  # loads the kernels
    with waiting_is_an_error():
        ascend(model, threat, objective, x, y, 5, keep=keep, random_start=True)


@pytest.mark.parametrize(
    ("threat", "climber"),
    [
        (LinfBall(0.2, 0.0), HalvingSteps()),
        (L2Ball(1.0, 0.0), HalvingSteps()),
        (L1Ball(5.0, 0.0), SparseSteps()),
    ],
)
def test_apgd_does_not_wait_for_the_gpu(make_tiny, batch, threat, climber) -> None:
    model = make_tiny(torch.float32).cuda()
    x, y = batch[0].float().cuda(), batch[1].cuda()
    settings = {"keep": "best", "random_start": True, "climber": climber}
    ascend(model, threat, CrossEntropy(), x, y, 2, **settings)  # loads the kernels
    with waiting_is_an_error():
        ascend(model, threat, CrossEntropy(), x, y, 30, **settings)


@pytest.mark.parametrize("ball", [LinfBall, L2Ball, L1Ball])
def test_a_cpu_generator_gives_the_same_start_everywhere(batch, ball: type) -> None:
    x = batch[0]
    starts = [
        ball(0.2, 0.05).init(x.to(device), True, torch.Generator().manual_seed(3)).cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.allclose(*starts, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_cpu_and_gpu_agree(make_tiny, batch, norm: str) -> None:
    x, y = batch
    eps = {"linf": 0.2, "l2": 1.0, "l1": 5.0}[norm]
    on_cpu = PGD(make_tiny(), eps, eps / 4, 5, norm)(x, y)
    on_gpu = PGD(make_tiny().cuda(), eps, eps / 4, 5, norm)(x.cuda(), y.cuda()).cpu()
    assert torch.allclose(on_cpu, on_gpu, rtol=0, atol=1e-9)


@pytest.mark.parametrize("objective", [CrossEntropy(), CrossEntropy() + KL() + Discrepancy()])
def test_one_launch_takes_the_same_steps(objective, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[bool] = []
    native = climb.native
    monkeypatch.setattr(climb, "native", lambda *a, **k: launches.append(True) or native(*a, **k))
    torch.manual_seed(0)
    model, x = small(seed=0).cuda(), torch.rand(5, 1, 28, 28, device="cuda")
    y = torch.arange(5, device="cuda")
    attack = PGD(model, 0.3, 0.05, 10, random_start=True, objective=objective)
    found, again = (attack(x, y, torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert torch.equal(found, again)
    assert len(launches) == 2
    with climb.one_by_one():
        expected = attack(x, y, torch.Generator("cuda").manual_seed(1))
    assert len(launches) == 2
    assert ((found - expected).abs() < 1e-5).double().mean() > 0.97
    assert (found - x).abs().max() <= 0.3 + 1e-6


def test_one_launch_does_not_wait_for_the_gpu() -> None:
    model, x = small(seed=0).cuda(), torch.rand(5, 1, 28, 28, device="cuda")
    y = torch.arange(5, device="cuda")
    threat, objective = LinfBall(0.2, 0.05), Discrepancy()
    ascend(model, threat, objective, x, y, 2, random_start=True)  # loads the kernels
    with waiting_is_an_error():
        ascend(model, threat, objective, x, y, 5, random_start=True)
