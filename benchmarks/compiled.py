"""torch.compile as a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch._functorch.config

from benchmarks.group import CannotRun, Group
from benchmarks.timing import Thunk

COMPILED = "compiled"


def compiled_entry(function: Callable[..., Any], make: Callable[..., Thunk]) -> Thunk:
    """`make(function compiled)`, which is compiled when it first runs.

    Shapes are fixed, which makes the fastest code, and the compiler starts afresh: code kept for
    other shapes would cost a check in each call. A compiled graph frees what it kept unless it is
    told that the backward pass runs again.
    """
    made: list[Thunk] = []

    def run() -> object:
        if not made:
            made.append(_compile(function, make))
        return made[0]()

    return run


def _compile(function: Callable[..., Any], make: Callable[..., Thunk]) -> Thunk:
    torch.compiler.reset()
    try:
        with torch._functorch.config.patch(donated_buffer=False):
            run = make(torch.compile(function, dynamic=False))
            run()
    except Exception as error:  # whatever the compiler, or the compiler behind it, raises
        lines = str(error).strip().splitlines() or [""]
        raise CannotRun(f"torch.compile: {type(error).__name__}: {lines[0][:200]}") from error
    return run


def without_compiler(groups: Iterable[Group]) -> list[Group]:
    """For a process that no slow compiler is to hold up."""
    return [g.only([name for name in g.entries if name != COMPILED]) for g in groups]


def beside_compiler(groups: Iterable[Group]) -> list[Group]:
    """torch.compile beside the baseline and ours, as groups of their own."""
    return [
        group.only(
            (group.baseline, COMPILED, group.ours),
            title=f"{group.title}, torch.compile",
            section=f"{group.section}, torch.compile",
        )
        for group in groups
        if COMPILED in group.entries
    ]
