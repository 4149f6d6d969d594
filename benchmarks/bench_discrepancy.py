"""The discrepancy against plain torch, compiled torch and a floor. `make bench` runs this.

The inner loop needs the gradient for features_adv alone, the outer loss needs all gradients. The
library's inner loops take value and gradient in one call, without autograd.
"""

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

ALONE, ALL = "gradient for A' alone", "all gradients"
WRT = {ALONE: [1], ALL: [0, 1, 2]}  # of features, features_adv, weight, labels
DIRECT = "fused, one call"

# Products of a [C, K] with a [K, h*w] that each image needs. Forward: one for the difference of
# the maps. Backward for all: one for A and A' together, whose gradients differ by a number for each
# channel, and one for W. Backward for A' alone: none, since the forward pass computes its gradient.
MATRIX_PRODUCTS = {
    ALONE: {"forward": 1, "backward": 0, "both": 2},
    ALL: {"forward": 1, "backward": 2, "both": 3},
}
# How often as many bytes as A has must move. Forward: read A and A'. Backward: read what the
# forward pass stored for each gradient, write the gradient. Both: read A and A', write gradients.
PASSES = {
    ALONE: {"forward": 2, "backward": 2, "both": 3},
    ALL: {"forward": 2, "backward": 4, "both": 4},
}


def groups(device: str) -> list[Group]:
    return [
        Group(
            section=f"discrepancy, {wrt}",
            title=f"discrepancy {case}, {wrt}, {phase}",
            entries=_names(wrt, phase),
            build=partial(build, case, wrt, phase, device),
            floor=(PRODUCTS, COPY),
            budget=5.0,
        )
        for wrt in WRT
        for case in REAL
        for phase in PHASES
        if (wrt, phase) != (ALL, "forward")  # the same forward pass as ALONE
    ]


def _names(wrt: str, phase: str) -> tuple[str, ...]:
    direct = (DIRECT,) if (wrt, phase) == (ALONE, "both") else ()
    products = (PRODUCTS,) if MATRIX_PRODUCTS[wrt][phase] else ()
    return (REFERENCE, COMPILED, FUSED, *direct, *products, COPY)


def build(case: MapCase, wrt: str, phase: str, device: str) -> Entries:
    torch.manual_seed(0)
    features, features_adv, weight, labels, _ = case.tensors(device=device)
    inputs = features, features_adv, weight, labels
    fused = partial(ops.discrepancy, validate=False)
    made = op_entries(phase, fused, ops.reference.discrepancy, inputs, WRT[wrt])
    made[DIRECT] = lambda: ops.discrepancy_and_gradient(*inputs, validate=False)
    made[PRODUCTS] = products_entry(MATRIX_PRODUCTS[wrt][phase], features, weight)
    made[COPY] = copy_entry(PASSES[wrt][phase] * features.nbytes, device)
    return {name: made[name] for name in _names(wrt, phase)}


def bench(timed, group, entry):
    timed(group, entry)
