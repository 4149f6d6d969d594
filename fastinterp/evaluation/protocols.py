"""How robust accuracy is measured: on which images, and by which attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count
from ..attacks.autoattack import STEPS as AUTOATTACK_STEPS
from ..attacks.ensemble import Attack
from ..data import ImageData, ImageStream
from .ensembles import Budget, best_attacks, paper_attacks, standard_attacks

PAPER_N = 200
PAPER_SEED = 99
ISA_SEED = 123
PAPER_EPS: dict[str, tuple[float, ...]] = {  # the columns of Table 3
    "mnist": (0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4),
    "cifar10": tuple(pixels / 255 for pixels in (0, 2, 4, 6, 8, 9, 10)),
}


def paper_selection(
    n_test: int, n: int = PAPER_N, seed: int = PAPER_SEED, num_classes: int = 10
) -> tuple[Tensor, Tensor]:
    """The test images that the paper's tables are measured on, and its targets.

    The images are the first n of numpy's legacy permutation. The targets' offsets, which lie in
    1..num_classes-1, are drawn right after it: the target of image i is
    `(label[i] + offset[i]) % num_classes`. The tables on PGD and AAI used seed 99 (`PAPER_SEED`),
    the table on ISA seed 123 (`ISA_SEED`).

    Args:
        n_test: size of the test set, in its official order.
        n: number of images.
        seed: of `numpy.random.RandomState`.
        num_classes: C, at least 2.

    Returns:
        (indices [n] int64, offsets [n] int64).

    Raises:
        InputError: n is not in 1..n_test, or there is only one class.
    """
    require_count("num_classes", num_classes, 2)
    if require_count("n", n) > n_test:
        raise InputError(f"n must be at most {n_test}, the number of images, got {n}.")
    random = np.random.RandomState(seed)  # the generator that the paper used
    indices = random.permutation(n_test)[:n]
    offsets = 1 + random.randint(num_classes - 1, size=n)
    return torch.from_numpy(indices).long(), torch.from_numpy(offsets).long()


def paper_batch(
    data: ImageData | ImageStream, n: int = PAPER_N, seed: int = PAPER_SEED
) -> tuple[Tensor, Tensor, Tensor]:
    """`paper_selection` of a test set: images [n, C_in, H, W], labels [n] and targets [n]."""
    chosen, offsets = paper_selection(len(data), n, seed, data.num_classes)
    labels = data.labels[chosen]
    return data.float(chosen), labels, (labels + offsets.to(labels)) % data.num_classes


@dataclass(frozen=True)
class Protocol:
    """How the accuracy in one cell of a table is measured.

    Attributes:
        name: as on the command line.
        attacks: model, budget and number of classes -> the attacks by name, in turn. An image is
            fooled if one of them fools it.
        steps: of gradient attacks, by default.
        paper: whether the attacks are the paper's: they take fixed steps, whose size may be set,
            and attack every image. Elsewhere attacks choose their own step sizes, and an image
            counts as fooled if the model is wrong at x or was fooled within a smaller eps or in
            fewer steps: an attacker may stop early, and the larger ball holds the smaller one.
        any_steps: whether the number of steps may be set.
        about: one line for `--help`.
    """

    name: str
    attacks: Callable[[nn.Module, Budget, int], Mapping[str, Attack]]
    steps: int
    about: str
    paper: bool = False
    any_steps: bool = True


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(
        "paper",
        paper_attacks,
        steps=200,
        paper=True,
        about="PGD on the cross-entropy from x in steps of 0.01; the last iterate counts",
    ),
    "best": Protocol(
        "best",
        best_attacks,
        steps=100,
        about="Auto-PGD on margins and the cross-entropy, FAB and Square, cut short where they "
        "seldom find more; in linf as strong as autoattack, in a fraction of its time",
    ),
    "autoattack": Protocol(
        "autoattack",
        standard_attacks,
        steps=AUTOATTACK_STEPS,
        any_steps=False,
        about="the standard version of AutoAttack, which others report",
    ),
}
"""Name on the command line -> protocol."""
