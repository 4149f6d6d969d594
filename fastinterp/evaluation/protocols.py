"""How robust accuracy is measured: which images, which attacks, and what counts as fooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._utils.errors import InputError
from ..attacks import CrossEntropy, Margin
from .tries import FlushedCrossEntropy, MarginTowards, Try

PAPER_N = 200
PAPER_SEED = 99
ISA_SEED = 123
PAPER_EPS: dict[str, tuple[float, ...]] = {  # the columns of Table 3
    "mnist": (0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4),
    "cifar10": tuple(pixels / 255 for pixels in (0, 2, 4, 6, 8, 9, 10)),
}
RANKS = 3  # how many wrong classes `best` steers towards, the likeliest first


def paper_selection(
    n_test: int, n: int = PAPER_N, seed: int = PAPER_SEED, num_classes: int = 10
) -> tuple[Tensor, Tensor]:
    """The test images that the paper's tables are measured on, and its targets.

    The first n of numpy's legacy permutation, and the targets' offsets drawn right after it: the
    target of image i is `(label[i] + offset[i]) % num_classes`. The tables on PGD and AAI used
    seed 99, the table on ISA seed 123 (`ISA_SEED`). Offsets lie in 1..num_classes-1.

    Args:
        n_test: size of the test set, in its official order.
        n: how many images; the paper's 200 by default.
        seed: of `numpy.random.RandomState`.
        num_classes: number of classes C >= 2.

    Returns:
        (indices [n] int64, offsets [n] int64).

    Raises:
        InputError: n is not in 1..n_test, or there is only one class.
    """
    if not 1 <= n <= n_test:
        raise InputError(f"n must lie between 1 and the {n_test} images there are, got {n}.")
    if num_classes < 2:
        raise InputError(f"targets need at least two classes, got {num_classes}.")
    random = np.random.RandomState(seed)  # the generator that the paper used
    indices = random.permutation(n_test)[:n]
    offsets = 1 + random.randint(num_classes - 1, size=n)
    return torch.from_numpy(indices).long(), torch.from_numpy(offsets).long()


@dataclass(frozen=True)
class Protocol:
    """How the accuracy in one cell of a table is measured.

    Attributes:
        name: as on the command line.
        tries: (step_size, fine) -> the attacks, in turn; `fine` is a step size with which the given
            number of steps crosses the ball. An image is fooled if one of them fools it.
        carry: images fooled within a smaller eps, or in fewer steps, count as fooled. They are: the
            smaller ball lies inside the larger one, and an attacker may stop early.
        about: one line for tables and `--help`.
    """

    name: str
    tries: Callable[[float, float], Sequence[Try]]
    carry: bool
    about: str


def _paper_tries(step_size: float, fine: float) -> list[Try]:
    return [Try(FlushedCrossEntropy(), step_size, keep="last", everyone=True)]


def _best_tries(step_size: float, fine: float) -> list[Try]:
    return [
        *_paper_tries(step_size, fine),
        Try(CrossEntropy(), step_size),
        Try(Margin(), step_size),
        Try(CrossEntropy(), fine, random_start=True),
        Try(Margin(), fine, random_start=True),
        *(Try(MarginTowards(rank), step_size, random_start=True) for rank in range(1, RANKS + 1)),
    ]


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(
        "paper",
        _paper_tries,
        carry=False,
        about="cross-entropy climbed from x in steps of 0.01, the last iterate judged",
    ),
    "best": Protocol(
        "best",
        _best_tries,
        carry=True,
        about="the paper's attack, then margins, random starts and the likeliest wrong classes; "
        "any iterate that fools counts",
    ),
}
