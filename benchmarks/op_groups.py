"""The ops against plain torch, compiled torch and the floor: one table for the CPU and the GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.cases import REAL, REAL_IMAGE_SHAPES, MapCase
from benchmarks.compiled import COMPILED, compiled_entry
from benchmarks.group import Entries, Group
from benchmarks.timing import Thunk
from fastinterp import ops
from fastinterp.ops.pgd_step import NORMS, Norm

Phase = Literal["forward", "backward", "both"]
Op = Callable[..., Tensor]
PHASES: tuple[Phase, ...] = ("forward", "backward", "both")
COPY = "copy of as many bytes"
PRODUCTS = "as many matrix products"
FUSED, REFERENCE = "fused", "reference"
DIRECT = "fused, one call"


def all_groups(device: str) -> list[Group]:
    return [*discrepancy_groups(device), *cam_groups(device), *step_groups(device)]


def copy_entry(moved: int, device: str) -> Thunk:
    """A copy that reads and writes `moved` bytes in all: what memory allows, as measured here."""
    source = torch.ones(max(1, moved // 8), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def products_entry(count: int, features: Tensor, weight: Tensor) -> Thunk:
    """`count` products of W with A, by torch."""
    weights = weight.detach().expand(len(features), -1, -1)
    panels = features.detach().flatten(2)
    out = torch.bmm(weights, panels)

    def multiply() -> None:
        for _ in range(count):
            torch.bmm(weights, panels, out=out)

    return multiply


def in_phase(phase: Phase, op: Op, inputs: tuple[Tensor, ...], wanted: list[int]) -> Thunk:
    """A thunk of the op's value, of its gradients from a graph that is kept, or of both.

    Args:
        inputs: of the op.
        wanted: which of them have gradients.
    """
    if phase == "forward":
        return torch.no_grad()(lambda: op(*inputs))
    by = [inputs[i] for i in wanted]
    ones = torch.ones_like(op(*inputs))
    if phase == "both":
        return lambda: torch.autograd.grad(op(*inputs), by, ones)
    value = op(*inputs)
    return lambda: torch.autograd.grad(value, by, ones, retain_graph=True)


def entries(
    phase: Phase, fused: Op, reference: Op, inputs: tuple[Tensor, ...], wanted: list[int]
) -> Entries:
    for i in wanted:
        inputs[i].requires_grad_()
    make = partial(in_phase, phase, inputs=inputs, wanted=wanted)
    compiled = compiled_entry(reference, lambda op: make(op=op))
    return {REFERENCE: make(op=reference), COMPILED: compiled, FUSED: make(op=fused)}


# Discrepancy
ALL = "all gradients"
WANTED = {"gradient for A' alone": [1], ALL: [0, 1, 2]}


def discrepancy_groups(device: str) -> Iterable[Group]:
    """The inner loop wants the gradient for features_adv alone, the outer loss all of them. Inner
    loops of the library take value and gradient in one call, without autograd."""
    for wanted in WANTED:
        for case in REAL:
            for phase in PHASES:
                if phase == "forward" and wanted == ALL:
                    continue  # without gradients there is one forward pass
                yield Group(
                    section=f"discrepancy, {wanted}",
                    title=f"discrepancy {case}, {wanted}, {phase}",
                    entries=(
                        *(REFERENCE, COMPILED, *_fused_ways(wanted, phase)),
                        *((PRODUCTS,) if _discrepancy_products(wanted, phase) else ()),
                        COPY,
                    ),
                    build=partial(_discrepancy, case, wanted, phase, device),
                    floor=(PRODUCTS, COPY),
                    budget=5.0,
                )


def _fused_ways(wanted: str, phase: Phase) -> tuple[str, ...]:
    return (FUSED, DIRECT) if wanted != ALL and phase == "both" else (FUSED,)


def _discrepancy(case: MapCase, wanted: str, phase: Phase, device: str) -> Entries:
    torch.manual_seed(0)
    features, features_adv, weight, labels, _ = case.tensors(device=device)
    made = entries(
        phase,
        functools.partial(ops.discrepancy, validate=False),
        ops.reference.discrepancy,
        (features, features_adv, weight, labels),
        WANTED[wanted],
    )
    if DIRECT in _fused_ways(wanted, phase):
        made[DIRECT] = lambda: ops.discrepancy_and_gradient(
            features, features_adv, weight, labels, validate=False
        )
    products = _discrepancy_products(wanted, phase)
    if products:
        made[PRODUCTS] = products_entry(products, features, weight)
    made[COPY] = copy_entry(_discrepancy_passes(wanted, phase) * features.nbytes, device)
    return made


def _discrepancy_passes(wanted: str, phase: Phase) -> int:
    """How often as many bytes as A has must move. Forward: read A and A'. Backward: read what the
    forward pass left for each gradient, write the gradient. Both: read A and A', write it."""
    gradients = 2 if 0 in WANTED[wanted] else 1
    return {"forward": 2, "backward": 2 * gradients, "both": 2 + gradients}[phase]


def _discrepancy_products(wanted: str, phase: Phase) -> int:
    """How many products of a [C, K] with a [K, u] there must be for each image. Forward: the maps'
    difference. Backward: one for A and A' together, whose gradients differ by a number for each
    channel, and one for W; none for A' alone, whose gradient the forward pass leaves behind."""
    forward, backward = 1, 2 if wanted == ALL else 0
    both = forward + (2 if wanted == ALL else 1)
    return {"forward": forward, "backward": backward, "both": both}[phase]


# CAM
def cam_groups(device: str) -> Iterable[Group]:
    for case in REAL:
        for phase in PHASES:
            yield Group(
                section="cam, gradients for A and the weights",
                title=f"cam {case}, {phase}",
                entries=(REFERENCE, COMPILED, FUSED, PRODUCTS, COPY),
                build=partial(_cam, case, phase, device),
                floor=(PRODUCTS, COPY),
                budget=5.0,
            )


def _cam(case: MapCase, phase: Phase, device: str) -> Entries:
    torch.manual_seed(0)
    features, _, weight, *_ = case.tensors(device=device)
    made = entries(phase, ops.cam, ops.reference.cam, (features, weight), [0, 1])
    maps = 4 * case.images * case.classes * case.height * case.width
    forward = features.nbytes + maps  # read A, write the maps
    backward = maps + 2 * features.nbytes  # read their gradient and A, write A's gradient
    moved = {"forward": forward, "backward": backward, "both": forward + backward}[phase]
    made[PRODUCTS] = products_entry(
        {"forward": 1, "backward": 2, "both": 3}[phase], features, weight
    )
    made[COPY] = copy_entry(moved, device)
    return made


# PGD step
IN_PLACE = "fused in place"


def step_groups(device: str) -> Iterable[Group]:
    for norm in NORMS:
        for shape in REAL_IMAGE_SHAPES:
            name = "x".join(str(n) for n in shape)
            yield Group(
                section="pgd_step",
                title=f"pgd_step {norm} {name}",
                entries=(REFERENCE, COMPILED, FUSED, IN_PLACE, COPY),
                build=partial(_step, norm, shape, device),
                floor=(COPY,),
                budget=5.0,
            )


def _step(norm: Norm, shape: tuple[int, ...], device: str) -> Entries:
    torch.manual_seed(0)
    x = torch.rand(shape, device=device)
    x_adv = (x + 0.01 * torch.randn_like(x)).clamp(0, 1)
    grad = torch.randn_like(x)
    own = x_adv.clone()  # the entry in place walks away from where the others start
    arguments: tuple[Any, ...] = (grad, x, 0.01, 0.03, 0.0, 1.0, norm)
    reference = ops.reference.pgd_step
    return {
        REFERENCE: lambda: reference(x_adv, *arguments),
        COMPILED: compiled_entry(reference, lambda op: lambda: op(x_adv, *arguments)),
        FUSED: lambda: ops.pgd_step(x_adv, *arguments),
        IN_PLACE: lambda: ops.pgd_step(own, *arguments, inplace=True),
        COPY: copy_entry(4 * x.nbytes, device),  # read x', its gradient and x, write x'
    }
