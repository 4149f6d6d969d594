"""A step of PGD against plain torch, compiled torch and a floor. `make bench` runs this."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.cases import REAL_IMAGE_SHAPES
from benchmarks.utils import (
    COMPILED,
    COPY,
    FUSED,
    REFERENCE,
    Entries,
    Group,
    compiled,
    copy_entry,
)
from fastinterp import ops
from fastinterp.ops.pgd_step import NORMS, Norm

IN_PLACE = "fused in place"


def groups(device: str) -> list[Group]:
    return [
        Group(
            section="pgd_step",
            title=f"pgd_step {norm} {'x'.join(map(str, shape))}",
            entries=(REFERENCE, COMPILED, FUSED, IN_PLACE, COPY),
            build=partial(build, norm, shape, device),
            floor=(COPY,),
            budget=5.0,
        )
        for norm in NORMS
        for shape in REAL_IMAGE_SHAPES
    ]


def build(norm: Norm, shape: tuple[int, ...], device: str) -> Entries:
    torch.manual_seed(0)
    x = torch.rand(shape, device=device)
    x_adv = (x + 0.01 * torch.randn_like(x)).clamp(0, 1)
    grad = torch.randn_like(x)
    in_place = x_adv.clone()  # changes at each run, so the other entries do not share it
    arguments = (grad, x, 0.01, 0.03, 0.0, 1.0, norm)
    reference = ops.reference.pgd_step
    return {
        REFERENCE: lambda: reference(x_adv, *arguments),
        COMPILED: compiled(reference, lambda op: lambda: op(x_adv, *arguments)),
        FUSED: lambda: ops.pgd_step(x_adv, *arguments),
        IN_PLACE: lambda: ops.pgd_step(in_place, *arguments, inplace=True),
        COPY: copy_entry(4 * x.nbytes, device),  # read x', its gradient and x, write x'
    }


def bench(timed, group, entry):
    timed(group, entry)
