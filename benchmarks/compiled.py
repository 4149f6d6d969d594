"""torch.compile as a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.group import Skipped
from benchmarks.timing import Thunk


def compiled_entry(function: Callable[..., Any], make: Callable[..., Thunk]) -> Thunk | Skipped:
    """`make(function compiled)`, run once; or the reason why the compiler refused.

    Shapes are fixed, which makes the fastest code, and the compiler starts afresh: code kept for
    other shapes would cost a check in each call.
    """
    torch.compiler.reset()
    try:
        run = make(torch.compile(function, dynamic=False))
        run()
    except Exception as error:  # whatever the compiler, or the compiler behind it, raises
        lines = str(error).strip().splitlines() or [""]
        return Skipped(f"torch.compile: {type(error).__name__}: {lines[0][:200]}")
    return run
