"""Which implementation serves, in processes of their own: the choice is made once, at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import needs_extension

from fastinterp import build_info

COMPARE = """
import torch, fastinterp
from benchmarks.cases import MapCase
from fastinterp import ops
from fastinterp.ops import conv_stack
from fastinterp.ops.conv_stack import Convolution, ConvStack
torch.manual_seed(0)
features, features_adv, weight, labels, bias = MapCase(3, 65, 13, 11, 33).tensors(torch.float64)
features_adv.requires_grad_()
for reduction in ("weighted", "1-class"):
    found, expected = (
        torch.autograd.grad(f(features, features_adv, weight, labels, reduction=reduction).sum(),
                            features_adv)[0]
        for f in (ops.discrepancy, ops.reference.discrepancy)
    )
    torch.testing.assert_close(found, expected)
torch.testing.assert_close(ops.cam(features, weight), ops.reference.cam(features, weight))
for norm in ("linf", "l2", "l1"):
    steps = [f(features_adv, features, features, 0.1, 0.2, -9.0, 9.0, norm)
             for f in (ops.pgd_step, ops.reference.pgd_step)]
    torch.testing.assert_close(*steps)
layers = [Convolution(torch.randn(16, 1, 4, 4), torch.randn(16), 2, (1, 1, 1, 1)),
          Convolution(torch.randn(35, 16, 3, 3) / 12, torch.randn(35), 1, (1, 1, 1, 1), 2)]
x = torch.rand(2, 1, 15, 15, requires_grad=True)
if fastinterp.build_info()["built"]:
    outs = [ConvStack(layers, (15, 15))(x), conv_stack.reference(x, layers)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.sum(), x)[0] for out in outs))
print(fastinterp.backend("cpu"), fastinterp.build_info().get("cpu_vectors"))
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        timeout=300,
    )


@needs_extension
@pytest.mark.parametrize("level", ["default", "avx2", "avx512"])
def test_every_vector_width_computes_the_same(level: str) -> None:
    if level == "avx512" and not torch.cpu._is_avx512_supported():
        pytest.skip("torch itself runs avx512 when told to, and this processor has none")
    done = run(COMPARE, ATEN_CPU_CAPABILITY=level, FASTINTERP_BACKEND="native")
    assert done.returncode == 0, done.stderr
    backend, vectors = done.stdout.split()
    assert backend == "cpu"
    widths = ["baseline", "avx2", "avx512"]  # a processor may lack the wider ones
    limit = widths[["default", "avx2", "avx512"].index(level)]
    assert widths.index(vectors) <= widths.index(limit)


def test_the_reference_serves_on_request() -> None:
    done = run(COMPARE, FASTINTERP_BACKEND="reference")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "reference"


def test_an_unknown_backend_is_refused() -> None:
    done = run("import fastinterp", FASTINTERP_BACKEND="gpu")
    assert done.returncode != 0
    assert "InputError: FASTINTERP_BACKEND must be one of" in done.stderr


HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "fastinterp._C" else find(name, *a)
"""


def test_without_an_extension_the_reference_serves_and_says_so_once() -> None:
    code = HIDE + (
        "import warnings, torch, fastinterp\n"
        "warnings.simplefilter('always')\n"
        "maps, weight = torch.ones(1, 2, 3, 3), torch.ones(2, 2)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3): fastinterp.ops.cam(maps, weight)\n"
        "print(len(caught), fastinterp.backend(), fastinterp.build_info()['cuda'])\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "reference", "False"]
    done = run(HIDE + "import fastinterp", FASTINTERP_BACKEND="native")
    assert "kernels were not built" in done.stderr


@needs_extension
def test_an_extension_that_does_not_load_is_an_error() -> None:
    code = (
        "import importlib\n"
        "load = importlib.import_module\n"
        "def broken(name, *a):\n"
        "    if name == 'fastinterp._C': raise ImportError('undefined symbol')\n"
        "    return load(name, *a)\n"
        "importlib.import_module = broken\n"
        "import fastinterp\n"
    )
    done = run(code)
    assert done.returncode != 0
    assert "built but do not load" in done.stderr
    assert "undefined symbol" in done.stderr


@needs_extension
def test_build_info_names_the_architectures() -> None:
    info = build_info()
    if not info["cuda"]:
        assert info["cuda_archs"] == []
        pytest.skip("no CUDA toolkit was here when the kernels were built")
    assert info["cuda_archs"]
    assert all("." in arch and "+" not in arch for arch in info["cuda_archs"])
