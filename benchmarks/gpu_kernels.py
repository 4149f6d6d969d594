"""Run the compiled kernels on small shapes, for gpu_check.py.

    FASTINTERP_BACKEND=native python -m benchmarks.gpu_kernels prove [DEVICE]
    FASTINTERP_BACKEND=native python -m benchmarks.gpu_kernels check [DEVICE] [SECONDS]

`prove` asks whether the kernels load, run on this device, and compute what plain torch computes on
a CPU. `check` runs every kernel on small and odd shapes, for compute-sanitizer, which makes kernels
slow: it stops after SECONDS, and says how many checks it ran.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch

from benchmarks.cases import ODD, MapCase
from fastinterp import backend, build_info, ops
from fastinterp.attacks import KL, CrossEntropy, Discrepancy, LinfBall, ascend
from fastinterp.models import small
from fastinterp.ops.pgd_step import NORMS, Norm

CLUSTERS = [MapCase(2, 20, 28, 28, 9), MapCase(1, 70, 12, 25, 37), MapCase(1, 900, 7, 9, 5)]
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def prove(device: str = "cuda") -> None:
    print(f"torch {torch.__version__}, built: {build_info()}")
    _require_kernels(device)
    torch.manual_seed(0)
    features, features_adv, weight, labels, _ = MapCase(4, 100, 7, 7, 10).tensors(torch.float64)
    expected = ops.reference.discrepancy(features, features_adv, weight, labels)
    singles = [t.to(device, torch.float32) for t in (features, features_adv, weight)]
    found = ops.discrepancy(*singles, labels.to(device)).double().cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0.0)
    print(f"the kernels serve on {device}")


def check(device: str = "cuda", seconds: str = "60") -> None:
    _require_kernels(device)
    every, begin, done = list(checks(device)), time.perf_counter(), 0
    for run in every:
        if time.perf_counter() - begin > float(seconds):
            break
        run()
        done += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"ran {done} of {len(every)} checks")


def _require_kernels(device: str) -> None:
    if backend(device) != device:
        sys.exit(f"no compiled kernels serve on {device}")


def checks(device: str) -> Iterator[Callable[[], None]]:
    """Those of float32 first, since all types share their code."""
    for norm in NORMS:
        yield partial(_step, norm, device)
    for channels, size in ((1, 12), (3, 9)):
        yield partial(_climb, channels, size, device)
    for length in (2, 49, 784, 5000):
        yield partial(_tau, length, device)
    for dtype, layout in product(TYPES, ("contiguous", "channels_last")):
        for case in ODD + CLUSTERS:
            yield partial(_maps, case, dtype, layout, device)


def _step(norm: Norm, device: str) -> None:
    x = torch.rand(3, 3, 17, 19, device=device)
    ops.pgd_step(x, x - 0.5, x, 0.1, 0.05, norm=norm)


def _climb(channels: int, size: int, device: str) -> None:
    model = small(channels, seed=0).to(device)
    x, y = torch.rand(2, channels, size, size, device=device), torch.tensor([0, 1], device=device)
    objective = CrossEntropy() + KL() + Discrepancy()
    ascend(model, LinfBall(0.1, 0.05), objective, x, y, 2, random_start=True)


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


if __name__ == "__main__":
    {"prove": prove, "check": check}[sys.argv[1]](*sys.argv[2:])
