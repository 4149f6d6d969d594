"""Train on several processes, each with a GPU of its own or a CPU core.

    torchrun --standalone --nproc_per_node 2 examples/torchrun_train.py

A trainer under torchrun joins the other processes: each takes its part of every batch, and their
gradients are averaged. The weights are those that one process would get.
"""

import sys

import torch
from torch import distributed

from fastinterp import IntTrainer, data, models

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
trainer = IntTrainer(
    models.small(seed=0),
    eps=0.1,
    steps=7,
    step_size=0.03,
    eps_schedule=(200, 600),
    lr=1e-3,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
history = trainer.fit(
    data.load("digits", split="train"),
    epochs,
    batch_size=50,  # of all processes together
    out="runs/example-processes",  # the first process writes
    resume=True,
    progress=False,
)
if not distributed.is_initialized() or distributed.get_rank() == 0:
    for row in history:
        print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, clean {row['clean_accuracy']:.3f}")
