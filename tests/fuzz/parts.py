"""The parts of the campaign: what is tried, how often, and in processes of their own or not."""

from __future__ import annotations

from typing import NamedTuple

import fuzz_commands
import fuzz_files
import fuzz_leaks
import fuzz_ops
import fuzz_runs
from harness import Case, Finding, run, run_in_children


class Part(NamedTuple):
    """One part.

    Attributes:
        name: of the part.
        case: a case, made of a `Random`.
        short, long: cases in `make test` and in `make fuzz`.
        apart: whether each case has a process of its own, with bounded time and memory.
    """

    name: str
    case: Case
    short: int
    long: int
    apart: bool = True

    def try_out(self, seeds: range) -> list[Finding]:
        return (run_in_children if self.apart else run)(self.name, self.case, seeds)


PARTS = (
    Part("op calls", fuzz_ops.case, 300, 20_000, apart=False),
    Part("pickles", fuzz_files.pickles, 20, 1_000),
    Part("checkpoints", fuzz_files.checkpoints, 20, 500),
    Part("MNIST files", fuzz_files.mnist, 8, 150),
    Part("CIFAR-10 files", fuzz_files.cifar10, 8, 150),
    Part("image folders", fuzz_files.images, 8, 300),
    Part("damaged states", fuzz_runs.damaged_states, 8, 300),
    Part("kills", fuzz_runs.kills, 1, 40, apart=False),
    Part("command lines", fuzz_commands.case, 20, 600),
    Part("leaks", fuzz_leaks.case, 3, 60),
)
