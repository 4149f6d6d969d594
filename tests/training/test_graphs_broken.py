"""Captures that break off, on a stand-in for torch.cuda that leaves behind what torch 2.11 does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastinterp.training import StepResult, graphs
from fastinterp.training.graphs import CudaRecorder

DEVICE = torch.device("cuda", 0)


class Graph:
    """A CUDAGraph of torch 2.11, whose reset knows nothing of a capture that did not end."""

    cleans_up = False

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.replays = 0

    def reset(self) -> None:
        if self.cleans_up:
            self.machine.end_pool(0, "pool")
            self.machine.release_pool(0, "pool")

    def replay(self) -> None:
        if self.machine.generator_captures:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.replays += 1


class Machine:
    """The streams, the allocator's pools and the generator's flag of one GPU."""

    def __init__(self) -> None:
        self.default = self.make_stream(DEVICE)
        self.current: Any = self.default
        self.recording_to: list[Any] = []
        self.released: list[Any] = []
        self.generator_captures = False
        self.broken = False

    def end_pool(self, device: int, pool: Any) -> None:
        if pool not in self.recording_to:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording_to.remove(pool)

    def release_pool(self, device: int, pool: Any) -> None:
        assert pool not in self.released, "released twice"
        self.released.append(pool)

    def make_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(device=device, wait_stream=lambda other: None)

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph: Graph, pool: Any, stream: Any, mode: str) -> Iterator[None]:
        """As torch.cuda.graph: what ends a capture comes in a row, without a `finally`."""
        assert mode == "thread_local"
        before, self.current = self.current, stream
        self.recording_to.append(pool)
        self.generator_captures = True
        try:
            yield
        finally:
            if self.broken:
                self.broken = False  # the driver's part of it ends
                raise RuntimeError("operation failed due to a previous error during capture")
            self.end_pool(0, pool)
            self.generator_captures = False
            self.current = before


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine, cuda = Machine(), torch.cuda
    monkeypatch.setattr(cuda, "CUDAGraph", lambda: Graph(machine))
    monkeypatch.setattr(cuda, "graph", machine.capture)
    monkeypatch.setattr(cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(cuda, "Stream", machine.make_stream)
    monkeypatch.setattr(cuda, "stream", machine.stream)
    monkeypatch.setattr(cuda, "current_stream", lambda device: machine.current)
    monkeypatch.setattr(cuda, "device", lambda device: machine.stream(machine.current))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", machine.end_pool, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", machine.release_pool, raising=False)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    monkeypatch.setattr(graphs, "_BROKEN", [])
    return machine


def waiting(machine: Machine) -> Callable[[], StepResult]:
    """An iteration that waits for the GPU, which no capture allows."""

    def run() -> StepResult:
        machine.broken = True
        raise RuntimeError("operation not permitted when stream is capturing")

    return run


def working() -> StepResult:
    return StepResult(torch.tensor(1.0), torch.tensor(2), None, 4)


def test_a_graph_replays_its_results(machine: Machine) -> None:
    recorder = CudaRecorder(DEVICE, [])
    assert recorder.warm_up(working).loss == 1
    replay = recorder.record(working)
    assert replay().loss == 1 and replay().clean_correct == 2
    assert machine.current is machine.default
    assert not machine.recording_to and not graphs._BROKEN


@pytest.mark.parametrize("cleans_up", [False, True])
def test_a_broken_capture_leaves_nothing_behind(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, cleans_up: bool
) -> None:
    """cleans_up: as later versions of torch, where `reset` does some of it."""
    monkeypatch.setattr(Graph, "cleans_up", cleans_up)
    earlier = CudaRecorder(DEVICE, []).record(working)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaRecorder(DEVICE, []).record(waiting(machine))
    assert machine.current is machine.default
    assert machine.recording_to == []
    assert machine.released == ["pool"]  # once, so that its memory may be used again
    assert len(graphs._BROKEN) == 1
    earlier()
    CudaRecorder(DEVICE, []).record(working)()


class Ring:
    """Garbage that only the collector finds, as an old graph may be."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_during_a_capture(machine: Machine, fails: bool) -> None:
    rings, enabled = [weakref.ref(Ring())], []

    def run() -> StepResult:
        enabled.append(gc.isenabled())
        rings.append(weakref.ref(Ring()))
        if fails:
            raise ValueError("not of CUDA")
        assert rings[0]() is None  # collected before, since this one may have been a graph
        for _ in range(20_000):  # enough for the collector to come by itself
            rings.append(weakref.ref(Ring()))
        assert all(ring() is not None for ring in rings[1:])
        return working()

    with pytest.raises(ValueError, match="not of CUDA") if fails else nullcontext():
        CudaRecorder(DEVICE, []).record(run)
    assert enabled == [False] and gc.isenabled()
    gc.disable()
    try:
        CudaRecorder(DEVICE, []).record(working)
        assert not gc.isenabled()  # as its user wants it
    finally:
        gc.enable()


def test_torch_without_the_private_names(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.delattr(torch._C, name, raising=False)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaRecorder(DEVICE, []).record(waiting(machine))
    assert machine.current is machine.default
    assert not machine.generator_captures


def test_a_second_failure_does_not_hide_the_first(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(*size: int, device: torch.device) -> None:
        machine.broken = True

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaRecorder(DEVICE, []).record(waiting(machine))
    assert machine.current is machine.default


def test_another_error_comes_through(machine: Machine) -> None:
    def run() -> StepResult:
        raise ValueError("not of CUDA")

    with pytest.raises(ValueError, match="not of CUDA"):
        CudaRecorder(DEVICE, []).record(run)
    assert machine.current is machine.default
    assert not machine.recording_to and not machine.generator_captures
