"""Two processes under DistributedDataParallel give the gradient that one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import INNER, Robust, batch

from fastinterp import AdvTrainer, InputError, IntLoss, models

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch has no gloo",
)
def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(SCRIPT)]
    processes = [
        subprocess.Popen([*words, str(rank), str(tmp_path)], env=environment) for rank in (0, 1)
    ]
    try:
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    model = models.small(seed=0)
    for rank in (0, 1):
        (Robust(model, seed=rank)(*batch(rank)) / 2).backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"gradients-{rank}.pt")
        for ours, parameter in zip(found, model.parameters(), strict=True):
            assert torch.allclose(ours, parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_wrapped_network_is_told_what_to_wrap() -> None:
    class DistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
        def __init__(self) -> None:  # needs no group of processes
            torch.nn.Module.__init__(self)

    x, y = batch(0)
    for use in (lambda net: IntLoss(**INNER)(net, x, y), AdvTrainer):
        with pytest.raises(InputError, match=r"wrap a module whose forward returns IntLoss"):
            use(DistributedDataParallel())
