"""One of several processes that train together; started by `start` with a list of jobs.

A job is a function of this file, called with the folder for its results. Starting a process costs
seconds, so a test starts one for many jobs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from conftest import Tiny, quadrants
from torch import Tensor, nn

from fastinterp.training import METHODS, Trainer

ROOT = Path(__file__).resolve().parents[2]
BATCH, STEPS = 12, int(os.environ.get("STEPS", "50"))


def start(count: int, jobs: str, folder: Path, **extra: str) -> list[subprocess.Popen[str]]:
    """Start processes with torchrun's variables; jobs are names with commas between."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}
    return [
        subprocess.Popen(
            [sys.executable, __file__, jobs, str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(started: list[subprocess.Popen[str]], seconds: float = 100) -> list[tuple[int, str]]:
    """The exit code and the standard error of each."""
    try:
        said = [process.communicate(timeout=seconds)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def tiny(dtype: torch.dtype = torch.float64, **kwargs: bool) -> Tiny:
    torch.manual_seed(3)
    return Tiny(**kwargs).to(dtype)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def train(
    name: str, norm: bool = False, batch: int = BATCH, ball: str = "linf", **settings: object
) -> dict[str, Tensor]:
    """The weights after some steps by a method."""
    model = tiny(norm=norm)
    size = {"linf": 1.0, "l2": 5.0, "l1": 20.0}[ball]
    inner = {"eps": 0.1 * size, "steps": 2, "step_size": 0.06 * size, "norm": ball}
    trainer = Trainer(model, name, lr=2e-3, **inner, **settings)
    images = quadrants(5 * batch, torch.float64)
    trainer.fit(images, STEPS // 5, batch, progress=False)
    assert trainer.step == STEPS
    return weights(model)


def methods(folder: Path | None = None) -> dict[str, dict[str, Tensor]]:
    return {name: train(name) for name in METHODS}


def normalised(folder: Path | None = None) -> dict[str, dict[str, Tensor]]:
    """With batch normalisation: by IG-Norm, which differentiates twice, and Int."""
    return {name: train(name, norm=True, sync_batchnorm=True) for name in ("ig-norm", "int")}


def balls(folder: Path | None = None) -> dict[str, dict[str, Tensor]]:
    """In other balls; 13 images are no equal shares."""
    return {norm: train("int-adv", batch=13, ball=norm) for norm in ("l2", "l1")}


def main(jobs: list[str], folder: Path) -> None:
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    for job in jobs:
        found = globals()[job](folder)
        torch.save(found, folder / f"{job}-{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]))
