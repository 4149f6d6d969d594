"""One of two processes that train together; started by test_distributed.py."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastinterp import IntLoss, models

IMAGES = 4  # of each process
INNER = {"eps": 0.2, "steps": 2, "step_size": 0.1}


class Robust(nn.Module):
    """docs/concepts.md: the search for x' runs on the bare network, inside the one forward pass."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model = model
        self.loss = IntLoss(seed=seed, **INNER)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.model, x, y)


def batch(rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    x = torch.rand((IMAGES, 1, 28, 28), generator=generator)
    return x, torch.arange(IMAGES) + rank


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    model = models.small(seed=0)
    together = DistributedDataParallel(Robust(model, seed=rank))
    together(*batch(rank)).backward()
    torch.save([p.grad for p in model.parameters()], folder / f"gradients-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
