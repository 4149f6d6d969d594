"""Several processes train the network of one and reach the verdicts of one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from resumable import EPOCHS, STEPS
from resumable import run as run_resumable
from together import ROOT, Weights, finish, start

from fastinterp.training.folder import STATE
from fastinterp.training.state import read_state

LONG = Path(__file__).with_name("resumable.py")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="torch has no gloo",
    ),
]
ALIKE = ("methods", "normalised", "options", "balls", "loader", "sources")


def run(count: int, jobs: str, folder: Path, **extra: str) -> Callable[[str], list[Any]]:
    """What each process found in a job."""
    for code, said in finish(start(count, jobs, folder, **extra)):
        assert code == 0, said[-2000:]
    return lambda job: [
        torch.load(folder / f"{job}-{rank}.pt", weights_only=False) for rank in range(count)
    ]


def assert_alike(many: dict[str, Weights], one: dict[str, Weights]) -> None:
    assert many.keys() == one.keys()
    for name in one:
        for key, weight in one[name].items():
            # Adam divides a gradient that is zero but for rounding by its own size and 1e-8.
            assert torch.allclose(many[name][key], weight, rtol=0, atol=1e-9), (name, key)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[str], list[Any]]]:
    folder = tmp_path_factory.mktemp("pair")
    together.train("int", out=folder / "resumed", epochs=1)
    jobs = [*ALIKE, "own_loop", "begun", "resumed", "verdicts", "refused"]
    return folder, run(2, ",".join(jobs), folder)


@pytest.mark.parametrize("job", [*ALIKE, "own_loop", "resumed"])
def test_two_processes_give_the_weights_of_one(pair, job: str) -> None:
    one = getattr(together, job)()
    for many in pair[1](job):
        assert_alike(many, one)


def test_one_process_goes_on_with_a_run_of_two(pair) -> None:
    weights = together.train("int", out=pair[0] / "begun")
    assert_alike({"": weights}, together.resumed())


def test_verdicts_are_those_of_one_process(pair) -> None:
    one = together.verdicts()
    for many in pair[1]("verdicts"):
        assert many == one


def test_processes_that_do_not_fit_together_are_refused(pair) -> None:
    for said in pair[1]("refused"):
        assert said["eps"].startswith("Process 0 trains with eps = 0.1 and process 1 with 0.2")
        assert "batch_size = 12 and process 1 with 13" in said["batch"]
        assert "another network" in said["network"]
        assert "at least the number of processes, 2" in said["small"]
        assert "holds a run already" in said["folder"]


@pytest.mark.slow
def test_three_processes_after_fifty_steps(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(together, "STEPS", 25)
    found = run(3, ",".join(ALIKE), tmp_path, STEPS="25")
    for job in ALIKE:
        one = getattr(together, job)()
        for many in found(job):
            assert_alike(many, one)


def torchrun(*words: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "--nproc_per_node", "2", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(launcher: subprocess.Popen[str]) -> None:
    """End torchrun, and give it time to end its processes."""
    launcher.terminate()
    with suppress(subprocess.TimeoutExpired):
        launcher.communicate(timeout=30)
    launcher.kill()


def kill_second(folder: Path, launcher: subprocess.Popen[str], signals: int, step: int = 2) -> None:
    """Send a signal to the second process once the run has saved a step."""
    while launcher.poll() is None:
        if (folder / STATE).exists() and read_state(folder / STATE).record["step"] >= step:
            os.kill(int((folder / "process-1").read_text()), signals)
            return
        time.sleep(0.01)
    pytest.fail(f"it ended too early: {launcher.communicate()}")


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_process_that_dies(tmp_path: Path, restarts: int) -> None:
    """It ends the run within a minute with a sentence, or torchrun starts all of them again."""
    launcher = torchrun("--max-restarts", str(restarts), str(LONG), str(tmp_path))
    try:
        kill_second(tmp_path, launcher, signal.SIGKILL)
        said = launcher.communicate(timeout=60)[1]
    finally:
        stop(launcher)
    assert (launcher.returncode == 0) == (restarts == 1), said
    assert ("Process 0 of 2 stopped because another process" in said) or restarts
    step = read_state(tmp_path / STATE).record["step"]
    assert step == EPOCHS * STEPS if restarts else 2 <= step < EPOCHS * STEPS
    both = run_resumable(tmp_path)[0], run_resumable(None)[0]
    for ours, theirs in zip(*(trainer.model.parameters() for trainer in both), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_ctrl_c_saves_the_step(tmp_path: Path) -> None:
    launcher = torchrun(str(LONG), str(tmp_path))
    try:
        kill_second(tmp_path, launcher, signal.SIGINT)  # it does not listen: the first one does
        launcher.send_signal(signal.SIGINT)
        launcher.communicate(timeout=60)
    finally:
        stop(launcher)
    assert launcher.returncode != 0
    assert read_state(tmp_path / STATE).record["step"] < EPOCHS * STEPS
    run_resumable(tmp_path)


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    """One process prints and writes."""
    out = tmp_path / "run"
    settings = ["--set", "epochs=1", "train_images=60", "steps=1", "val_images=40"]
    for words, code in (
        (("train", "digits-int", "--out", str(out), *settings), 0),
        (("train", "digits-int", "--out", str(out), *settings), 1),
    ):
        launcher = torchrun("-m", "fastinterp", *words)
        try:
            printed, said = launcher.communicate(timeout=100)
        finally:
            stop(launcher)
        assert (launcher.returncode != 0) == code, said
        if code:
            assert said.count("fastinterp: error:") == 1 and "holds a run already" in said
        else:
            assert len(re.findall("written: |protocol paper", printed)) == 1
