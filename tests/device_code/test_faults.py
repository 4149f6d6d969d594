"""Device code on the CPU: the watching finds what is planted, and nothing where nothing is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from support import WATCHING, load_device_code

only_races = pytest.mark.skipif(WATCHING != "races", reason="runs under `make check-device` alone")
SOUND = 0
FAULTS = {
    1: "race in shared memory",
    2: "race in shared memory",
    3: "race in global memory: thread 0 of block 0 wrote .* thread 0 of block 1 writes",
    4: "waits for ever at __syncthreads",
    5: "misaligned",
}
CLUSTER_FAULTS = {1: "block 1 wrote .* block 0 reads", 2: "block 1 read .* block 0 writes"}


@only_races
def test_sound_programs_pass() -> None:
    load_device_code()
    out = torch.zeros(512)
    torch.ops.fastinterp.device_faulty(SOUND, out)
    assert out.sum() == 512
    pairs = torch.zeros(6)
    torch.ops.fastinterp.device_faulty_cluster(SOUND, pairs)
    assert pairs.eq(2).all()


@only_races
@pytest.mark.parametrize("kind", FAULTS)
def test_faults_of_a_block_are_found(kind: int) -> None:
    load_device_code()
    with pytest.raises(RuntimeError, match=FAULTS[kind]):
        torch.ops.fastinterp.device_faulty(kind, torch.zeros(512))
    test_sound_programs_pass()  # nothing of it is left


@only_races
@pytest.mark.parametrize("kind", CLUSTER_FAULTS)
def test_faults_of_a_cluster_are_found(kind: int) -> None:
    load_device_code()
    with pytest.raises(RuntimeError, match=CLUSTER_FAULTS[kind]):
        torch.ops.fastinterp.device_faulty_cluster(kind, torch.zeros(6))
    test_sound_programs_pass()


OUTSIDE = """
import torch
from support import load_device_code
load_device_code()
torch.ops.fastinterp.device_faulty({kind}, torch.zeros(512))
"""


@pytest.mark.skipif(WATCHING != "bounds", reason="runs under `make check-device` alone")
@pytest.mark.parametrize("kind", [SOUND, 6, 7])
def test_accesses_outside_of_memory_are_found(kind: int) -> None:
    command = [sys.executable, "-c", OUTSIDE.format(kind=kind)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode == 0) == (kind == SOUND), done.stderr
    assert ("heap-buffer-overflow" in done.stderr) == (kind != SOUND), done.stderr
