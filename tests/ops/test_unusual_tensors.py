"""Tensors that are sparse, nested, quantised or without numbers are refused by every op."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.cases import MapCase
from fastinterp import InputError, ops

FEATURES, ADV, WEIGHT, LABELS, BIAS = MapCase(2, 3, 2, 2, 4).tensors()
IMAGES, SIZES, ROWS = FEATURES.sigmoid(), torch.tensor([0.1, 0.2]), FEATURES.flatten(1)
UNCHECKED: dict[str, Any] = {"bias": BIAS, "validate": False}
CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]] = {
    "cam": (ops.cam, (FEATURES, WEIGHT), {}),
    "discrepancy": (ops.discrepancy, (FEATURES, ADV, WEIGHT, LABELS), {}),
    "discrepancy, unchecked": (ops.discrepancy, (FEATURES, ADV, WEIGHT, LABELS), UNCHECKED),
    "discrepancy_and_gradient": (
        ops.discrepancy_and_gradient,
        (FEATURES, ADV, WEIGHT, LABELS),
        UNCHECKED,
    ),
    "pgd_step": (ops.pgd_step, (IMAGES, ADV, IMAGES, SIZES, SIZES), {}),
    "pgd_step, unchecked": (
        ops.pgd_step,
        (IMAGES, ADV, IMAGES, SIZES, SIZES),
        {"validate": False, "inplace": True},
    ),
    "kendall_tau": (ops.kendall_tau, (ROWS, ROWS + 1), {}),
}


def nested(values: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(values)) if values.dim() > 1 else values.to_sparse()


def quantised(values: Tensor) -> Tensor:
    return torch.quantize_per_tensor(values.float(), 0.1, 0, torch.qint8)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "meta": lambda values: values.to("meta"),
    "sparse": lambda values: values.to_sparse(),
    "mkldnn": lambda values: values.float().to_mkldnn(),
    "nested": nested,
    "quantised": quantised,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_each_argument_and_all_of_them_are_refused(call: str, kind: str) -> None:
    op, arguments, settings = CALLS[call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces what it will change in these kinds
        changed = [KINDS[kind](argument) for argument in arguments]
        bias = KINDS[kind](BIAS)
    calls = [
        ((*arguments[:at], changed[at], *arguments[at + 1 :]), settings)
        for at in range(len(arguments))
    ]
    calls.append((tuple(changed), settings))
    if "bias" in settings:
        calls.append((arguments, settings | {"bias": bias}))
    for spoilt, options in calls:
        with pytest.raises(InputError) as caught:
            op(*spoilt, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call", ["cam", "discrepancy, unchecked", "pgd_step, unchecked", "kendall_tau"]
)
def test_compilers_trace_with_fake_tensors(call: str) -> None:
    op, arguments, settings = CALLS[call]
    settings = settings | {"inplace": False} if "inplace" in settings else dict(settings)
    real = op(*arguments, **settings)
    with FakeTensorMode() as mode:
        if "bias" in settings:
            settings["bias"] = mode.from_tensor(BIAS)
        fake = op(*map(mode.from_tensor, arguments), **settings)
    assert (fake.shape, fake.dtype, fake.device) == (real.shape, real.dtype, real.device)


def test_a_tensor_is_no_name() -> None:
    with pytest.raises(InputError, match="reduction"):
        ops.discrepancy(FEATURES, ADV, WEIGHT, LABELS, reduction=torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="norm"):
        ops.pgd_step(IMAGES, ADV, IMAGES, 0.1, 0.1, norm=torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="inplace"):
        ops.pgd_step(IMAGES, ADV, IMAGES, 0.1, 0.1, inplace=torch.zeros(2))  # type: ignore[arg-type]
