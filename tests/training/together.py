"""One of several processes that work together; started by `start` with a list of jobs.

A job is a function of this file that is called with a folder; without one it does the same in one
process. Starting a process costs seconds, so a test starts one for many jobs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny import Tiny, quadrants
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastinterp import CAM, InputError, evaluation, models
from fastinterp._utils import processes
from fastinterp.data import ImageStream
from fastinterp.training import METHODS, Trainer

ROOT = Path(__file__).resolve().parents[2]
BATCH, EPOCHS = 12, 2
STEPS = int(os.environ.get("STEPS", "4"))  # of an epoch
Weights = dict[str, Tensor]


def start(count: int, jobs: str, folder: Path, **extra: str) -> list[subprocess.Popen[str]]:
    """Start processes with torchrun's variables; `jobs` are names with commas between."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}
    return [
        subprocess.Popen(
            [sys.executable, __file__, jobs, str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
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


def make(name: str, norm: bool = False, ball: str = "linf", **settings: Any) -> Trainer:
    torch.manual_seed(3)
    model = Tiny(norm=norm).double()
    size = {"linf": 1.0, "l2": 5.0, "l1": 20.0}[ball]
    inner = {"eps": 0.1 * size, "steps": 2, "step_size": 0.06 * size, "norm": ball}
    return Trainer(model, name, lr=2e-3, **inner | settings)


def train(name: str, batch: int = BATCH, out: Path | None = None, **settings: Any) -> Weights:
    """The weights after training by a method."""
    epochs = settings.pop("epochs", EPOCHS)
    trainer = make(name, **settings)
    images = quadrants(STEPS * batch, torch.float64)
    trainer.fit(images, epochs, batch, images, out=out, resume=True, progress=False)
    return trainer.model.state_dict()


def methods(folder: Path | None = None) -> dict[str, Weights]:
    return {name: train(name) for name in METHODS}


def normalised(folder: Path | None = None) -> dict[str, Weights]:
    """With batch normalisation: by IG-Norm, which differentiates twice, and Int."""
    return {name: train(name, norm=True, sync_batchnorm=True) for name in ("ig-norm", "int")}


def options(folder: Path | None = None) -> dict[str, Weights]:
    more = {"awp": 0.01, "ema": 0.9, "clip_grad": 0.1, "label_smoothing": 0.1}
    return {name: train(name, scheduler="cosine", **more) for name in ("trades", "ig-norm")}


def balls(folder: Path | None = None) -> dict[str, Weights]:
    """In other balls; 13 images are no equal shares."""
    return {norm: train("int-adv", 13, ball=norm) for norm in ("l2", "l1")}


def loader(folder: Path | None = None) -> dict[str, Weights]:
    """The last of a DataLoader's batches has one image."""
    trainer = make("ig-norm-sum")
    images = TensorDataset(*quadrants(2 * BATCH + 1, torch.float64))
    trainer.fit(DataLoader(images, BATCH), EPOCHS, progress=False)
    return {"": trainer.model.state_dict()}


class Drawn(ImageStream):
    """Images of `quadrants` that come as from files, with noise as of a random transform."""

    def read(self, position: int) -> Tensor:
        noise = torch.rand((1, 8, 8), dtype=torch.float64)
        return (quadrants(position + 1, torch.float64)[0][position] + noise) / 2


def sources(folder: Path | None = None) -> dict[str, Weights]:
    """Augmented images in memory, and a stream of files."""
    x, y = quadrants(2 * BATCH + 1, torch.float64)
    stream = Drawn([""] * len(y), y, tuple("abcd"), transform=str)
    found = {}
    for name, data, settings in (
        ("augmented", (x, y), {"augment": "crop-flip"}),
        ("stream", stream, {}),
        ("few", stream, {"steps_per_epoch": 1}),
    ):
        trainer = make("normal")
        trainer.fit(data, EPOCHS, BATCH - 1, progress=False, **settings)
        found[name] = trainer.model.state_dict()
    return found


def own_loop(folder: Path | None = None) -> dict[str, Weights]:
    """`training_step` by hand: one process gives 2 images and each other one 5."""
    trainer, (x, y) = make("adv"), quadrants(7, torch.float64)
    rank = int(os.environ["RANK"]) if folder else None
    rows = {None: slice(7), 0: slice(2), 1: slice(2, 7)}[rank]
    for _ in range(STEPS):
        trainer.training_step(x[rows], y[rows])
    return {"": trainer.model.state_dict()}


def begun(folder: Path | None = None) -> dict[str, Weights]:
    """Several processes begin a run, which one goes on with."""
    return {"": train("int", out=folder / "begun" if folder else None, epochs=1)}


def resumed(folder: Path | None = None) -> dict[str, Weights]:
    """Several processes go on with a run that one has begun."""
    return {"": train("int", out=folder / "resumed" if folder else None)}


def verdicts(folder: Path | None = None) -> dict[str, Any]:
    """Every measurement, in batches whose number the processes do not divide."""
    model = models.small(seed=0)
    x, y = torch.rand((30, 1, 28, 28), generator=torch.Generator().manual_seed(0)), None
    y = model(x).argmax(1)
    common: dict[str, Any] = {"batch_size": 9, "progress": False}
    step = {"eps": [0.02, 0.1], "steps": 3, **common}
    targets = (y + 1) % 10
    best = evaluation.worst_maps.aai_best_sweep
    sweep = partial(evaluation.corruption_sweep, model, x, y, targets, protocol="best")
    return {
        "sweep": evaluation.sweep(model, x, y, protocol="best", **step),
        "aai": evaluation.aai_sweep(model, CAM(model), x, y, **step),
        "fog": sweep(attack="fog", **step),
        "best": best(model, CAM(model), x[:20], y[:20], **step | {"steps": 2}),
        "audit": evaluation.audit(model, x, y, eps=0.1, steps=(1, 3), **common),
    }


def refused(folder: Path) -> dict[str, str]:
    """The message for settings that differ between processes."""
    rank = int(os.environ["RANK"])
    images = quadrants(BATCH)
    wrong: dict[str, Callable[[], Any]] = {
        "eps": lambda: train("adv", eps=0.1 * (rank + 1)),
        "batch": lambda: train("adv", 12 + rank),
        "network": lambda: train("adv", norm=rank == 1),
        "small": lambda: Trainer(Tiny(), "normal").fit(images, 1, 1),
        "folder": lambda: Trainer(Tiny(), "normal").fit(images, 1, out=folder / "resumed"),
    }
    said = {}
    for name, do in wrong.items():
        try:
            do()
        except InputError as error:
            said[name] = str(error)
    return said


def main(jobs: list[str], folder: Path) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        found = globals()[job](folder)
        torch.save(found, folder / f"{job}-{os.environ['RANK']}.pt")
    processes.leave()
    left = [name for name in map(thread_name, Path("/proc/self/task").glob("*")) if "gloo" in name]
    assert not left, f"threads of the group may abort the end of Python: {left}"


def thread_name(task: Path) -> str:
    with suppress(FileNotFoundError):  # it has ended
        return (task / "comm").read_text().strip()
    return ""


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]))
