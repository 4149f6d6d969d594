"""Runs that are killed, states that are damaged: nothing is lost, nothing is taken on silently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from harness import damage, one_sentence
from torch import Tensor

from fastinterp import models
from fastinterp.training import IntTrainer

STATE = "state.safetensors"
SETTINGS: dict[str, Any] = {
    "eps": 0.1, "steps": 2, "eps_schedule": (3, 12), "lr": 1e-3, "lr_milestones": (9,),
}  # fmt: skip


def train(out: str | Path, epochs: int = 3, checkpoint_seconds: float = 0.0) -> IntTrainer:
    """A run of some seconds at most."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (50,), generator=generator)
    trainer = IntTrainer(models.small(1, 4, seed=0), **SETTINGS)
    trainer.fit(
        (images, labels), epochs, batch_size=8, out=out, resume=True, progress=False,
        checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip
    return trainer


def weights(trainer: IntTrainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


@cache
def undisturbed() -> list[Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return weights(train(folder))


@cache
def half_way() -> dict[str, bytes]:
    """The files of a run after the first of its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        train(folder, epochs=1)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
    return {name: content for name, content in files.items() if not name.startswith("model")}


def damaged_states(random: Random) -> None:
    """A damaged state is refused, or the one before it serves and the run ends as it should."""
    files = dict(half_way())
    whole = files[STATE]
    head = int.from_bytes(whole[:8], "little") + 8
    how = random.random()
    if how < 0.4:
        files[STATE] = damage(whole[:head], random) + whole[head:]
    elif how < 0.6:
        text = damage(whole[8:head], random)
        files[STATE] = len(text).to_bytes(8, "little") + text + whole[head:]
    elif how < 0.8:
        files[STATE] = whole[:head] + damage(whole[head:], random)
    else:  # one bit of a number
        at = random.randrange(head, len(whole))
        files[STATE] = whole[:at] + bytes([whole[at] ^ 1 << random.randrange(8)]) + whole[at + 1 :]
    if files[STATE] == whole:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            trainer = train(folder)
        except Exception as error:
            one_sentence(error)
            return
        same = all(map(torch.equal, weights(trainer), undisturbed()))
        assert same, "a damaged state was resumed, and the weights are not those of the run"


def kills(random: Random) -> None:
    """Killed at any moment, several times, and resumed: the weights of a run that was not."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(random.randrange(1, 4)):
            process = subprocess.Popen(
                [sys.executable, __file__, folder],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            end = time.monotonic() + 60  # from the first state on, when the process is at work
            while not (Path(folder) / STATE).exists() and process.poll() is None:
                assert time.monotonic() < end, "no state within a minute"
                time.sleep(0.01)
            time.sleep(random.random() * 0.4)
            process.send_signal(signal.SIGKILL)
            process.wait()
        trainer = train(folder)
        assert all(map(torch.equal, weights(trainer), undisturbed())), "other weights"
        left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]
        assert not [name for name in left if "tmp" in name], f"hidden files are left: {left}"


if __name__ == "__main__":
    train(sys.argv[1])
