"""In which precision torch computes convolutions and matrix products of float32 on a GPU.

By default it is TF32 for convolutions and float32 for matrix products. The benchmarks of a GPU use
exact float32 for both unless an entry says "tf32", which is TF32 for both, or "bf16".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.timing import Thunk


def use_exact_float32() -> None:
    _use(convolutions=False, products=False)


def in_use() -> dict[str, str]:
    """What a results file says of it."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "convolutions": "tf32" if cudnn.allow_tf32 else "float32",
        "matrix products": "tf32" if cuda.matmul.allow_tf32 else "float32",
    }


@contextmanager
def tf32() -> Iterator[None]:
    """TF32 for a while."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    _use(convolutions=True, products=True)
    try:
        yield
    finally:
        _use(*before)


def in_tf32(make: Callable[[], Thunk]) -> Thunk:
    """What `make` makes, made and run in TF32."""
    with tf32():
        run = make()

    def timed() -> object:
        with tf32():
            return run()

    return timed


def _use(convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products
