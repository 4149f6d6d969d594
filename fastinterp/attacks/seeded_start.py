"""Random starts that depend on an image's own seed, never on its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_whole
from .threats import Around


@dataclass(frozen=True)
class SeededStart(Around):
    """A threat whose random starts depend on the image's own seed, never on its batch.

    Attributes:
        threat: the threat that is started.
        seeds: one for each image of the batch, below 2^32.
    """

    seeds: Sequence[int]

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        if not random_start or len(x) == 0:
            return self.threat.init(x, False, generator)
        starts = []
        for row, seed in enumerate(self.seeds):
            own = torch.Generator().manual_seed(seed)
            threat = self.threat.rows(torch.tensor([row], device=x.device))
            starts.append(threat.init(x[row : row + 1], True, own))
        return torch.cat(starts)

    def rows(self, index: Tensor) -> SeededStart:
        seeds = [self.seeds[row] for row in index.tolist()]
        return SeededStart(self.threat.rows(index), seeds)


def another_seed(seed: int, number: int) -> int:
    """The seed of an image's attempt of that number; attempt 0 has the image's own seed."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) if number else seed


def require_seeds(who: str, seeds: object, count: int) -> list[int]:
    """`seeds` as a list, if they are `count` whole numbers in 0..2^32 - 1."""
    if isinstance(seeds, Tensor):
        seeds = seeds.tolist()
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or len(seeds) != count:
        raise InputError(f"{who}: seeds must be a list of {count} whole numbers, one an image.")
    found = [require_whole(f"{who}: a seed", seed) for seed in seeds]
    if not all(0 <= seed < 2**32 for seed in found):
        raise InputError(f"{who}: seeds must lie in 0..2**32 - 1, got {min(found)}..{max(found)}.")
    return found
