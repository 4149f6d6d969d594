"""Training iterations as CUDA graphs: recorded once, then launched by a single call.

An iteration of a small network is hundreds of short kernels, and a GPU waits for Python between
them. A graph has fixed addresses, so everything that changes from step to step is in buffers that
each replay reads: the batch, eps, and the draws of the random start.
"""

from __future__ import annotations

import gc
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..attacks import LinfBall
from ..attacks.threats import Threat, draw_like
from .result import StepResult

WARM_UP = 3  # iterations that run eagerly before the capture
MOST_GRAPHS = 4  # each holds memory of its own


Iterate = Callable[[Tensor, Tensor, Threat | None], StepResult]
Replay = Callable[[], StepResult]


class CudaRecorder:
    """Warms an iteration up and records it, on a CUDA stream.

    Args:
        parameters: whose gradients an iteration computes; a replay puts them back in place.
    """

    def __init__(self, device: torch.device, parameters: list[nn.Parameter]) -> None:
        self.device, self.parameters = device, parameters
        self._side: torch.cuda.Stream | None = None

    def warm_up(self, run: Replay) -> StepResult:
        """Run it on the stream on which it will be recorded.

        A capture needs kernels that are loaded and states that another stream than the default one
        allocated.
        """
        side, current = self._stream(), torch.cuda.current_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = run()
        current.wait_stream(side)
        return result

    def record(self, run: Replay) -> Replay:
        """Record it without running it, and return what runs it.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        graph, result = capture(run, self.device, self._stream())
        gradients = [parameter.grad for parameter in self.parameters]

        def replay() -> StepResult:
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            # Clones, because the next replay overwrites its results.
            robust = result.robust_correct
            return StepResult(
                result.loss.clone(),
                result.clean_correct.clone(),
                None if robust is None else robust.clone(),
                result.images,
            )

        return replay

    def _stream(self) -> torch.cuda.Stream:
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return self._side


Result = TypeVar("Result")
_BROKEN: list[torch.cuda.CUDAGraph] = []  # torch 2.11 still calls into them at each allocation


def capture(
    run: Callable[[], Result], device: torch.device, stream: torch.cuda.Stream
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Record what `run` does on a GPU: the graph, and tensors that a replay writes.

    Args:
        stream: a stream of that device, not the default one. Torch's own stream for captures
            belongs to the device of the first capture.

    Raises:
        RuntimeError: it cannot be recorded; the device is left as it was.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    current = torch.cuda.current_stream(device)
    with _no_garbage_collection(), torch.cuda.device(device):
        try:
            # The current stream is entered again, because torch leaves the capture's stream current
            # after a failed capture.
            with torch.cuda.stream(current), torch.cuda.graph(graph, pool, stream, _MODE):
                return graph, run()
        except BaseException:
            _clean_up(graph, pool, stream)
            raise


_MODE = "thread_local"  # threads that load data may use the GPU meanwhile


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect now, not inside: a capture fails if an old graph is destroyed during it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _clean_up(
    graph: torch.cuda.CUDAGraph, pool: tuple[int, int], stream: torch.cuda.Stream
) -> None:
    """Undo what a failed capture left behind.

    Torch 2.11 stops at the first error on its way out of a capture. The allocator and the random
    generator then believe that the capture goes on, and every later capture and replay in the
    process fails. Newer versions clean up more, so each step here may fail.
    """
    _BROKEN.append(graph)
    device = stream.device.index
    with suppress(RuntimeError):
        graph.reset()
    with suppress(RuntimeError, AttributeError):  # private functions
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)  # else its memory is never freed
    # A capture that succeeds resets the generator. Replacing its state would not do, because the
    # graphs recorded before hold the old one.
    current, small = torch.cuda.current_stream(stream.device), torch.cuda.CUDAGraph()
    with (
        suppress(RuntimeError),
        torch.cuda.stream(current),
        torch.cuda.graph(small, None, stream, _MODE),
    ):
        torch.zeros(1, device=stream.device)


@dataclass(frozen=True)
class DrawnBall(LinfBall):
    """A linf ball whose random start is given.

    Attributes:
        given: [N, d], uniform in [0, 1).
    """

    given: Tensor | None = None

    def draws(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return super().draws(x, generator) if self.given is None else self.given.to(x)


class _Buffers:
    """Iterations that differ only in the contents of these buffers, and their graph."""

    def __init__(
        self, x: Tensor, y: Tensor, step_size: float, moves: bool, share: tuple[int, int] | None
    ) -> None:
        self.x, self.y = torch.empty_like(x), torch.empty_like(y)
        self.eps = x.new_zeros(1)
        first, images = (0, len(x)) if share is None else share
        self.drawn = draw_like(x.new_empty((images, *x.shape[1:])), None)  # for the whole batch
        self.draws = self.drawn[first : first + len(x)]
        # Made here and not in the iteration: it checks its radius, which waits for the device.
        self.ball = DrawnBall(self.eps, step_size, given=self.draws) if moves else None
        self.runs = 0
        self.replay: Replay | None = None

    def fill(self, x: Tensor, y: Tensor, eps: float, generator: torch.Generator) -> None:
        self.x.copy_(x)
        self.y.copy_(y)
        if self.ball is not None:
            self.eps.fill_(eps)
            self.drawn.uniform_(generator=generator)


class GraphedIterations:
    """Runs a trainer's iterations: the first few eagerly, the later ones as a graph.

    A batch smaller than those before it runs eagerly, and so does everything after a capture
    failed, which one warning says.

    Args:
        recorder: records on a GPU; tests have stand-ins for a CPU.

    Attributes:
        replays: how many times a graph was replayed.
    """

    def __init__(self, recorder: CudaRecorder) -> None:
        self.recorder = recorder
        self.failed = False
        self.replays = 0
        self._largest = 0
        self._buffers: OrderedDict[Hashable, _Buffers] = OrderedDict()

    def forget(self) -> None:
        """Drop all graphs, because tensors that they write to were replaced."""
        self._buffers.clear()

    def accepts(self, x: Tensor) -> bool:
        """Whether a batch should run here."""
        self._largest = max(self._largest, len(x))
        return not self.failed and len(x) == self._largest

    def __call__(
        self,
        iterate: Iterate,
        x: Tensor,
        y: Tensor,
        eps: float,
        step_size: float,
        generator: torch.Generator,
        settings: Hashable,
        share: tuple[int, int] | None = None,
    ) -> StepResult:
        """One iteration.

        Args:
            iterate: the iteration, which reads and writes only its arguments and tensors that stay
                where they are. It is not stored: a trainer's method would keep the trainer alive.
            eps: radius of the linf ball; eps = 0 has a graph of its own, without an inner loop.
            settings: everything else that the iteration depends on and that is in no buffer.
            share: which images of a batch x are; see `Ball`.
        """
        key = (x.shape, x.dtype, y.dtype, eps != 0, settings, share)
        if key not in self._buffers:
            self._buffers[key] = _Buffers(x, y, step_size, eps != 0, share)
            if len(self._buffers) > MOST_GRAPHS:
                self._buffers.popitem(last=False)  # the least recently used
        self._buffers.move_to_end(key)
        buffers = self._buffers[key]
        buffers.fill(x, y, eps, generator)
        buffers.runs += 1
        run = partial(iterate, buffers.x, buffers.y, buffers.ball)
        if buffers.replay is None and buffers.runs > WARM_UP:
            buffers.replay = self._record(run)
        if buffers.replay is None:
            return self.recorder.warm_up(run)
        self.replays += 1
        return buffers.replay()

    def _record(self, run: Replay) -> Replay | None:
        try:
            return self.recorder.record(run)
        except RuntimeError as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            warnings.warn(
                f"The training step cannot be captured as a CUDA graph ({reason}); it runs "
                "eagerly, correct but slower.",
                RuntimeWarning,
                stacklevel=2,
            )
            self.failed = True
            self.forget()
            return None


def module_state(model: nn.Module) -> Hashable:
    """What a graph has fixed of a network: its modules and modes, and its parameters' addresses."""
    modes = tuple((module, module.training) for module in model.modules())
    return modes, tuple((p.data_ptr(), p.requires_grad) for p in model.parameters())
