"""CAM maps against plain torch, compiled torch and a floor. `make bench` runs this."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.cases import REAL, MapCase
from benchmarks.utils import (
    COMPILED,
    COPY,
    FUSED,
    PHASES,
    PRODUCTS,
    REFERENCE,
    Entries,
    Group,
    copy_entry,
    op_entries,
    products_entry,
)
from fastinterp import ops

MATRIX_PRODUCTS = {"forward": 1, "backward": 2, "both": 3}


def groups(device: str) -> list[Group]:
    return [
        Group(
            section="cam, gradients for A and the weights",
            title=f"cam {case}, {phase}",
            entries=(REFERENCE, COMPILED, FUSED, PRODUCTS, COPY),
            build=partial(build, case, phase, device),
            floor=(PRODUCTS, COPY),
            budget=5.0,
        )
        for case in REAL
        for phase in PHASES
    ]


def build(case: MapCase, phase: str, device: str) -> Entries:
    torch.manual_seed(0)
    features, _, weight, *_ = case.tensors(device=device)
    made = op_entries(phase, ops.cam, ops.reference.cam, (features, weight), [0, 1])
    maps = 4 * case.images * case.classes * case.height * case.width
    forward = features.nbytes + maps  # read A, write the maps
    backward = maps + 2 * features.nbytes  # read their gradient and A, write A's gradient
    moved = {"forward": forward, "backward": backward, "both": forward + backward}[phase]
    made[PRODUCTS] = products_entry(MATRIX_PRODUCTS[phase], features, weight)
    made[COPY] = copy_entry(moved, device)
    return made


def bench(timed, group, entry):
    timed(group, entry)
