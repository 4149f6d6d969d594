"""A short run to be killed and resumed: `python resumable.py FOLDER`. No test itself."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fastinterp import models
from fastinterp.training import IntTrainer

EPOCHS, STEPS = 4, 6  # of so many steps each


def run(out: str | Path | None, resume: bool = True, **changes: Any) -> tuple[IntTrainer, list]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (50,), generator=generator)
    fit = {"epochs": EPOCHS, "batch_size": 8, "checkpoint_seconds": 0.0, "progress": False}
    fit |= {
        key: changes.pop(key)
        for key in list(changes)
        if key in (*fit, "val_data", "val_attack", "callbacks")
    }
    settings = {"eps": 0.1, "steps": 2, "eps_schedule": (3, 12), "lr": 1e-3, "lr_milestones": (9,)}
    trainer = IntTrainer(models.small(1, 4, seed=0), **(settings | changes))
    return trainer, trainer.fit((images, labels), out=out, resume=resume, **fit)


if __name__ == "__main__":
    if "RANK" in os.environ:  # one of several processes, which a test wants to stop in time
        Path(sys.argv[1], f"process-{os.environ['RANK']}").write_text(str(os.getpid()))
        step = IntTrainer.training_step
        IntTrainer.training_step = lambda *args: (time.sleep(0.15), step(*args))[1]
    run(sys.argv[1])
