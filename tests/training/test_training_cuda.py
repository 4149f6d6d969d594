"""What only a GPU can show. Skipped, with the reason, where none is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastinterp.training import METHODS, IntTrainer, Trainer, method
from fastinterp.training.folder import STATE
from fastinterp.training.state import read_state

pytestmark = pytest.mark.cuda
INNER = {"eps": 0.1, "steps": 3, "step_size": 0.04}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_gpu(make_tiny, make_data, name: str) -> None:
    trainer = Trainer(make_tiny(), method(name), device="cuda", **INNER)
    x, y = (t.cuda() for t in make_data(16))
    trainer.training_step(x, y)  # loads the kernels and makes the optimiser's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.training_step(x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_and_resuming_on_a_gpu(tmp_path: Path, make_tiny, make_data) -> None:
    def fit(epochs: int, resume: bool) -> list[dict]:
        trainer = IntTrainer(make_tiny(), lr=0.02, device="cuda", **INNER)
        return trainer.fit(make_data(64), epochs, 16, out=tmp_path, resume=resume, progress=False)

    fit(3, resume=False)
    assert read_state(tmp_path / STATE).record["step"] == 12
    history = fit(12, resume=True)
    assert [row["epoch"] for row in history] == list(range(1, 13))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
