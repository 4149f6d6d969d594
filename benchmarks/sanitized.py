"""Every kernel on small and odd shapes, for compute-sanitizer.

    python -m benchmarks.sanitized [DEVICE] [SECONDS]

After so many seconds it stops and says how far it came: a checked kernel is slow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch

from benchmarks.cases import ODD, MapCase
from fastinterp import backend, ops
from fastinterp.ops.pgd_step import NORMS, Norm

CLUSTERS = [MapCase(2, 20, 28, 28, 9), MapCase(1, 70, 12, 25, 37), MapCase(1, 900, 7, 9, 5)]
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def checks(device: str) -> Iterator[Callable[[], None]]:
    """Those of float32 first, as all types share their code."""
    for norm in NORMS:
        yield partial(_step, norm, device)
    for length in (2, 49, 784, 5000):
        yield partial(_tau, length, device)
    for dtype, layout in product(TYPES, ("contiguous", "channels_last")):
        for case in ODD + CLUSTERS:
            yield partial(_maps, case, dtype, layout, device)


def _step(norm: Norm, device: str) -> None:
    x = torch.rand(3, 3, 17, 19, device=device)
    ops.pgd_step(x, x - 0.5, x, 0.1, 0.05, norm=norm)


def _tau(length: int, device: str) -> None:
    a = torch.randn(3, length, device=device)
    ops.kendall_tau(a, (a + torch.randn_like(a)).round(decimals=1))


def _maps(case: MapCase, dtype: torch.dtype, layout: str, device: str) -> None:
    features, features_adv, weight, labels, bias = case.tensors(dtype, device, layout)
    features_adv.requires_grad_()
    weight.requires_grad_()
    ops.discrepancy(features, features_adv, weight, labels, bias=bias).sum().backward()
    alone = features_adv.detach().requires_grad_()
    ops.discrepancy(features, alone, weight.detach(), labels).sum().backward()
    ops.cam(features_adv, weight).sum().backward()
    ops.discrepancy_and_gradient(features, alone.detach(), weight.detach(), labels, bias=bias)


def main(device: str = "cuda", seconds: str = "60") -> None:
    if backend(device) != device:
        sys.exit(f"no compiled kernels serve on {device}")
    every, begin, done = list(checks(device)), time.perf_counter(), 0
    for check in every:
        if time.perf_counter() - begin > float(seconds):
            break
        check()
        done += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"ran {done} of {len(every)} checks")


if __name__ == "__main__":
    main(*sys.argv[1:])
