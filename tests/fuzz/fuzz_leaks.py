"""Memory stays flat, however often an op or an attack is called."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from fastinterp import attacks, interpreters, models, ops

CALLS = 150
BYTES = 3 << 20  # of noise: an image here has 256 bytes, a call makes some 100 KB
OBJECTS = 100


@cache
def network() -> models.GapClassifier:
    return models.small(1, 4, seed=0).eval()


def tensors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 8, 8, generator=generator), torch.tensor([0, 3])


def draw(random: Random) -> Callable[[], object]:
    x, y = tensors()
    model, eps = network(), 0.1
    features, weight = model.features(x).detach(), model.weight.detach()
    targets = (y + 1) % 4
    discrepancy = partial(ops.discrepancy, features, features + 1, weight, y)
    learnt = features.clone().requires_grad_()

    def backward() -> None:
        ops.discrepancy(learnt, features + 1, weight, y).sum().backward()
        learnt.grad = None

    return random.choice(
        (
            partial(ops.cam, features, weight),
            discrepancy,
            backward,
            partial(ops.discrepancy_and_gradient, features, features + 1, weight, y),
            partial(ops.kendall_tau, x.flatten(1), x.flatten(1).flip(1)),
            partial(ops.pgd_step, x, x - 0.5, x, 0.01, eps, norm=random.choice(("linf", "l2"))),
            partial(attacks.PGD(model, eps=eps, steps=3), x, y),
            partial(attacks.PGD(model, eps=eps, steps=3, norm="l1"), x, y),
            partial(attacks.MinimalPGD(model, steps=3), x, y),
            partial(attacks.AAI(model, interpreters.CAM(model), eps, steps=3, k=2), x, y),
            partial(attacks.ISA(model, interpreters.CAM(model), steps=1), x, y, targets),
            partial(attacks.Fog(model, eps=eps, steps=2), x, y),
            partial(attacks.Elastic(model, eps=eps, steps=2), x, y),
        )
    )


def case(random: Random) -> None:
    call = draw(random)
    for _ in range(CALLS // 5):
        call()
    before = held()
    for _ in range(CALLS):
        call()
    grown, objects = (after - first for after, first in zip(held(), before, strict=True))
    assert grown < BYTES, f"{grown} bytes more after {CALLS} calls of {call}"
    assert objects < OBJECTS, f"{objects} objects more after {CALLS} calls of {call}"


def held() -> tuple[int, int]:
    """Bytes in memory, and Python objects."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects())
