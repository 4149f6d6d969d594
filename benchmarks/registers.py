"""Write docs/kernels.md: registers and spills of each CUDA kernel, as the compiler reports them.

    python -m benchmarks.registers

It compiles the kernels with ptxas's report on, which takes a minute and needs no GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from torch.utils import cpp_extension

from benchmarks.climb_work import section
from fastinterp._utils.toolkit import find_toolkit

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernels.md"
ARCH = "90"
TYPES = {"float": "float32", "double": "float64", "c10::Half": "float16", "c10::BFloat16": "bf16"}
THREADS, SHARED = 256, 256 * 16 * 4  # of a block; bytes (kernels/products.cuh)
LIMIT = 65536  # registers of a multiprocessor
NAME = re.compile(rf"(\w+)<({'|'.join(TYPES)})(?:, (?:\(int\))?(\d+))?")
INTRODUCTION = f"""\
# What kernels take

Written by `python -m benchmarks.registers` from ptxas's report for sm_{ARCH}: registers of a thread
and, in brackets, how many blocks of {THREADS} threads these let a multiprocessor hold, at most 8.
"Spilled" are bytes of registers that did not fit and of arrays that could not be registers, in
memory. Kernels of products take {SHARED // 1024} KiB of shared memory a block (float64: twice
that); `DiscrepancyClusterKernel` takes what its tiles need, and `ClimbKernel` what its network
needs, up to what a block may have: one block a multiprocessor.
`PgdStepLinfKernel<n>` moves n numbers at once; `PgdStepBallKernel<1>` is the l1 step, `<2>` the l2
step. The kernels are in `csrc/kernels/<op>.cuh`.
"""


class Kernel(NamedTuple):
    """One kernel for one type."""

    name: str
    type: str
    registers: int
    spilled: int  # bytes of stack and of spilled registers


def report() -> str:
    """ptxas's report of every kernel.

    Raises:
        SystemExit: there is no toolkit, or the kernels do not compile.
    """
    toolkit = find_toolkit()
    if toolkit is None:
        sys.exit("No CUDA toolkit was found; set CUDA_HOME to the folder that holds bin/nvcc.")
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(toolkit.home / "bin" / "nvcc"), "-cubin", f"-arch=sm_{ARCH}", "-Xptxas", "-v"),
            *("-O3", "-DNDEBUG", "-std=c++20", "-lineinfo", "--expt-relaxed-constexpr"),
            *cpp_extension.COMMON_NVCC_FLAGS,
            *includes,
            *("csrc/cuda/ops.cu", "-o", str(Path(folder) / "ops.cubin")),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"The kernels did not compile:\n{done.stderr}")
    return subprocess.run(
        ["c++filt"], input=done.stderr, capture_output=True, text=True, check=True
    ).stdout


def kernels(text: str) -> list[Kernel]:
    """From ptxas's report, demangled: one for each kernel and type, sorted."""
    found = []
    for part in text.split("Compiling entry function ")[1:]:
        named = NAME.search(part)
        if named is None:
            raise ValueError(f"a kernel of no known type: {part.splitlines()[0]}")
        name = f"{named[1]}<{named[3]}>" if named[3] else named[1]
        spilled = _number(r"(\d+) bytes stack frame", part) + _number(
            r"(\d+) bytes spill stores", part
        )
        found.append(Kernel(name, TYPES[named[2]], _number(r"Used (\d+) registers", part), spilled))
    return sorted(found)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"ptxas says nothing like {pattern!r}: {text.splitlines()[0]}")
    return int(match[1])


def page(found: list[Kernel], toolkit: str) -> str:
    """The Markdown page: a line for each kernel, a column for each type."""
    lines = [
        f"| kernel | {' | '.join(TYPES.values())} | spilled |",
        f"| --- |{' ---: |' * (len(TYPES) + 1)}",
    ]
    for name in dict.fromkeys(one.name for one in found):
        by_type = {one.type: one for one in found if one.name == name}
        cells = [_cell(by_type.get(kind)) for kind in TYPES.values()]
        spilled = max(one.spilled for one in by_type.values())
        lines.append(f"| {name} | {' | '.join(cells)} | {spilled} |")
    return f"{INTRODUCTION}\nCUDA {toolkit}.\n\n" + "\n".join(lines) + f"\n\n{section()}"


def _cell(one: Kernel | None) -> str:
    if one is None:
        return "-"
    return f"{one.registers} ({min(LIMIT // (THREADS * one.registers), 8)})"


def main() -> None:
    text = report()
    toolkit = find_toolkit()
    found = kernels(text)
    PAGE.write_text(page(found, toolkit.version if toolkit else "unknown"), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(found)} kernels")


if __name__ == "__main__":
    main()
