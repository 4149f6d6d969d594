"""What a climb of MNIST Small costs, counted from its layers; docs/kernels.md shows it.

It repeats how `csrc/launch/climb_plan.h` divides the layers among the threads of a block.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

THREADS, WARP, SCHEDULERS, COLUMNS, CHANNELS = 256, 32, 4, 4, 8  # csrc/kernels/climb_layers.cuh
SHARE = 0.78  # of the inner loops' instructions that multiply and add (nvdisasm, CUDA 13.0)
GIGAHERTZ = 1.755  # of an H100 under load
IMAGES, STEPS, MULTIPROCESSORS = 50, 40, 132


class Layer(NamedTuple):
    """A square convolution of square maps."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def reach(self, i: int) -> int:
        """How many taps of an output's row lie on the input."""
        above = self.padding - i * self.stride
        return min(self.kernel, self.size + above) - max(0, above)


# With the classifier in its last convolution.
SMALL = [Layer(28, 1, 16, 4, 2, 1), Layer(14, 16, 32, 4, 2, 1), Layer(7, 32, 10, 7, 1, 3)]
POOL = [Layer(28, 1, 32, 5, 1, 2), Layer(14, 32, 64, 5, 1, 2)]


def useful(layer: Layer) -> int:
    """Multiply-adds of one pass, without those of zeros beside the maps."""
    taps = sum(layer.reach(i) for i in range(layer.out)) ** 2
    return taps * layer.inputs * layer.outputs


def cycles(layer: Layer, forward: bool) -> int:
    """Multiply-adds that the busiest scheduler of a multiprocessor issues for a whole warp."""
    pack = 4 if layer.inputs % 4 == 0 else 1
    rows = layer.out if forward else layer.size
    phases = 1 if forward else layer.stride
    blocks = phases * ceil(ceil(rows / phases) / COLUMNS)
    channels = layer.outputs if forward else layer.inputs // pack
    groups = ceil(channels / (CHANNELS if forward else CHANNELS // pack))
    height = ceil(channels / groups)
    slices = layer.inputs // pack if forward else 1
    bundle = blocks * groups
    taps = layer.kernel**2 if forward else ceil(layer.kernel / layer.stride) ** 2
    parts = max(1, min(taps, THREADS // (rows * bundle * slices)))
    issued = [0] * SCHEDULERS
    threads = rows * parts * bundle * slices
    for warp in range(ceil(threads / WARP)):
        most = 0
        for thread in range(warp * WARP, min(threads, (warp + 1) * WARP)):
            row = thread // (parts * bundle * slices)
            seen = _taps(layer, row, forward)
            most = max(most, ceil(seen / parts))
        terms = pack if forward else pack * layer.outputs
        issued[warp % SCHEDULERS] += most * height * COLUMNS * terms
    return max(issued)


def _taps(layer: Layer, row: int, forward: bool) -> int:
    """Taps that a row of results sees, with those that lie beside it."""
    if forward:
        return layer.reach(row) * layer.kernel
    first = (row + layer.padding) % layer.stride
    at = (row + layer.padding) // layer.stride
    rows = ceil((layer.kernel - first) / layer.stride)
    seen = min(at + 1, rows) - max(0, at - layer.out + 1)
    return seen * ceil(layer.kernel / layer.stride)


def section() -> str:
    """Markdown: the counts, and the time that follows from them."""
    work = 2 * sum(map(useful, SMALL))
    issued = sum(cycles(layer, way) for layer in SMALL for way in (True, False))
    peak = 128 * GIGAHERTZ * 1e9  # multiply-adds of a multiprocessor in a second
    floor = STEPS * work / peak
    gpu = IMAGES * STEPS * work / peak / MULTIPROCESSORS
    expected = STEPS * issued / SHARE / (GIGAHERTZ * 1e9)
    return f"""\
## What a climb takes

`ClimbKernel` takes an image of MNIST Small, its classifier in the last convolution, through {STEPS}
steps. Computed from the sizes of the layers by `benchmarks/climb_work.py`; **no GPU has run it**.

| | |
| --- | ---: |
| multiply-adds of a step, forward and back | {work / 1e6:.2f} million |
| floor of {IMAGES} images, all {MULTIPROCESSORS} multiprocessors of an H100 at their peak | \
{1e3 * gpu:.2f} ms |
| floor of an image, its multiprocessor at its peak | {1e3 * floor:.2f} ms |
| cycles of a step that issue multiply-adds, with those of zeros and of idle threads | {issued} |
| expected where these are {100 * SHARE:.0f} % of the instructions and nothing else waits | \
{1e3 * expected:.2f} ms |
| read from global memory, an image | {_bytes() / 1024:.0f} KiB, once |

Each block has a multiprocessor to itself, so up to {MULTIPROCESSORS} images take as long as one.
What the table leaves out (barriers, sums of parts, the objective, waiting for shared memory) may
add a third.

MNIST Pool has no such kernel. Of the 227 KiB that a block can have, the weights of its two
convolutions take {_pool_bytes() / 1024:.0f} and the maps that max-pooling leaves \
{_pooled_bytes() / 1024:.0f}. Its steps are replayed as CUDA graphs.
"""


def _pool_bytes() -> int:
    return 4 * sum(c.inputs * c.outputs * c.kernel**2 for c in POOL)


def _pooled_bytes() -> int:
    return 4 * sum((c.out // 2) ** 2 * c.outputs for c in POOL)


def _bytes() -> int:
    weights = sum(c.inputs * c.outputs * c.kernel**2 + c.outputs for c in SMALL)
    return 4 * (weights + 2 * SMALL[0].size ** 2 + SMALL[-1].outputs * SMALL[-1].out ** 2)
