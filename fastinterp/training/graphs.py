"""Training iterations as CUDA graphs: recorded once, then started with a single call.

An iteration of a small network is hundreds of short kernels, and a GPU waits for Python between
them. A graph has fixed addresses, so everything that changes from step to step lies in buffers: the
batch, eps, and the draws of the random start. Each replay reads them anew.
"""

from __future__ import annotations

import gc
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..attacks import LinfBall
from ..attacks.threats import Threat, draw_like

WARM_UP = 3  # iterations of a kind that run eagerly before it is captured; they are real ones
MOST_GRAPHS = 4  # each keeps its memory


class Measured(NamedTuple):
    """What an iteration leaves: its loss, and how many images were right at x and at x'."""

    loss: Tensor
    clean_correct: Tensor
    robust_correct: Tensor | None


Iterate = Callable[[Tensor, Tensor, Threat | None], Measured]
Replay = Callable[[], Measured]


class Recorder(Protocol):
    """How an iteration on buffers is warmed up and recorded."""

    def warm_up(self, run: Replay) -> Measured:
        """Run it as it will run while it is recorded."""
        ...

    def record(self, run: Replay) -> Replay:
        """Record it without running it; the answer runs it. Raises RuntimeError if it cannot."""
        ...


class NoRecorder:
    """Runs the same function on the same buffers each time. For tests, where there is no GPU."""

    def warm_up(self, run: Replay) -> Measured:
        return run()

    def record(self, run: Replay) -> Replay:
        return run


class CudaRecorder:
    """Records on a CUDA stream.

    Args:
        parameters: whose gradients an iteration leaves; a replay puts them back in place.
    """

    def __init__(self, device: torch.device, parameters: list[nn.Parameter]) -> None:
        self.device, self.parameters = device, parameters
        self._side: torch.cuda.Stream | None = None

    def warm_up(self, run: Replay) -> Measured:
        # Capture wants kernels loaded and states allocated by a stream other than the default one.
        side, current = self._stream(), torch.cuda.current_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            measured = run()
        current.wait_stream(side)
        return measured

    def record(self, run: Replay) -> Replay:
        graph, measured = capture(run, self.device, self._stream())
        gradients = [parameter.grad for parameter in self.parameters]

        def replay() -> Measured:
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            # The next replay writes over its results; who keeps a StepResult keeps these.
            loss, clean, robust = measured
            return Measured(loss.clone(), clean.clone(), None if robust is None else robust.clone())

        return replay

    def _stream(self) -> torch.cuda.Stream:
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return self._side


Result = TypeVar("Result")
_BROKEN: list[torch.cuda.CUDAGraph] = []  # torch 2.11 goes on asking them what an allocation is for


def capture(
    run: Callable[[], Result], device: torch.device, stream: torch.cuda.Stream
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Record what `run` does on a GPU: the graph, and tensors that a replay writes.

    Args:
        stream: of that device, not its default stream. Torch's own stream for captures is the
            first capture's, and so may be another device's.

    Raises:
        RuntimeError: it cannot be recorded; the device goes on as if that had not been tried.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    current = torch.cuda.current_stream(device)
    with _no_garbage_collection(), torch.cuda.device(device):
        try:
            # The current stream is entered once more because torch, when a capture breaks off,
            # leaves the other one in its place.
            with torch.cuda.stream(current), torch.cuda.graph(graph, pool, stream, _MODE):
                return graph, run()
        except BaseException:
            _clear_away(graph, pool, stream)
            raise


_MODE = "thread_local"  # threads that load data go on using the GPU meanwhile


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect now and not again inside: a capture fails when an old graph is destroyed in it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _clear_away(
    graph: torch.cuda.CUDAGraph, pool: tuple[int, int], stream: torch.cuda.Stream
) -> None:
    """Undo what a capture that broke off has left of itself.

    Torch stops at the first error on its way out of a capture. What comes after that in 2.11 stays
    undone: the allocator and the random generator believe that the capture goes on, and every
    capture and replay in the process fails. Later versions do more, so each step here may fail.
    """
    _BROKEN.append(graph)
    device = stream.device.index
    with suppress(RuntimeError):
        graph.reset()
    with suppress(RuntimeError, AttributeError):  # private names
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)  # else its memory would never be free again
    # A capture that ends well tells the generator so. A new state in its place would not do: the
    # graphs that were recorded before hold the old one.
    current, small = torch.cuda.current_stream(stream.device), torch.cuda.CUDAGraph()
    with (
        suppress(RuntimeError),
        torch.cuda.stream(current),
        torch.cuda.graph(small, None, stream, _MODE),
    ):
        torch.zeros(1, device=stream.device)


@dataclass(frozen=True)
class DrawnBall(LinfBall):
    """A linf ball whose random start was drawn beforehand.

    Attributes:
        draws: [N, d], uniform in [0, 1).
    """

    draws: Tensor | None = None

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.draws is None:
            return super()._noise(x, generator)
        return self.draws.to(x).mul(2).sub(1)


class _Kind:
    """Iterations that differ only in what lies in their buffers."""

    def __init__(self, x: Tensor, y: Tensor, step_size: float, moves: bool) -> None:
        self.x, self.y = torch.empty_like(x), torch.empty_like(y)
        self.eps = x.new_zeros(1)
        self.draws = draw_like(x, None)
        # Made here and not in the iteration: it checks its radius, which waits for the device.
        self.ball = DrawnBall(self.eps, step_size, draws=self.draws) if moves else None
        self.runs = 0
        self.replay: Replay | None = None

    def fill(self, x: Tensor, y: Tensor, eps: float, generator: torch.Generator) -> None:
        self.x.copy_(x)
        self.y.copy_(y)
        if self.ball is not None:
            self.eps.fill_(eps)
            self.draws.uniform_(generator=generator)


class GraphedIterations:
    """Runs a trainer's iterations: the first few of a kind as they are, then as a graph.

    A batch smaller than those before it runs as it is, and so does everything once a capture has
    failed, which one warning says.

    Attributes:
        replays: how often a graph was replayed.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.failed = False
        self.replays = 0
        self._largest = 0
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def forget(self) -> None:
        """Drop what was recorded, since tensors that it wrote to were replaced."""
        self._kinds.clear()

    def fits(self, x: Tensor) -> bool:
        """Whether a batch is to go through here."""
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
    ) -> Measured:
        """One iteration.

        Args:
            iterate: the iteration, which reads and writes nothing but its arguments and tensors
                that stay where they are. It is not kept: a trainer's method would keep the trainer.
            eps: radius of the linf ball; 0 is a kind of its own, without an inner loop.
            settings: whatever else the iteration depends on and no buffer holds.
        """
        kind = self._kind(x, y, step_size, eps != 0, settings)
        kind.fill(x, y, eps, generator)
        kind.runs += 1
        run = partial(iterate, kind.x, kind.y, kind.ball)
        if kind.replay is None and kind.runs > WARM_UP:
            kind.replay = self._record(run)
        if kind.replay is None:
            return self.recorder.warm_up(run)
        self.replays += 1
        return kind.replay()

    def _kind(
        self, x: Tensor, y: Tensor, step_size: float, moves: bool, settings: Hashable
    ) -> _Kind:
        key = (x.shape, x.dtype, y.dtype, step_size, moves, settings)
        if key not in self._kinds:
            self._kinds[key] = _Kind(x, y, step_size, moves)
            if len(self._kinds) > MOST_GRAPHS:
                self._kinds.popitem(last=False)  # the one that was not used for longest
        self._kinds.move_to_end(key)
        return self._kinds[key]

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


def state_of(model: nn.Module) -> Hashable:
    """What of a network a graph has fixed: its modules and modes, and where its parameters lie."""
    modes = tuple((module, module.training) for module in model.modules())
    return modes, tuple((p.data_ptr(), p.requires_grad) for p in model.parameters())


def settings_of(optimizer: Optimizer) -> Hashable:
    """What of an optimiser a graph has fixed: the numbers in its groups, and which tensors."""
    values = [value for group in optimizer.param_groups for value in group.values()]
    seen = (tuple(value) if isinstance(value, list) else value for value in values)
    return optimizer, *(value for value in seen if isinstance(value, Hashable))


def make_capturable(optimizer: Optimizer, device: torch.device, wanted: bool) -> list[Tensor]:
    """Let a graph hold the optimiser's step, if it can: learning rate and counts on the device.

    Undoes that where it is not wanted, after a state that was saved on a GPU was loaded.

    Returns:
        Each group's learning rate, which a graph reads; none where no graph can hold the step,
        which is left as it is, to run after a replay.
    """
    able = wanted and all(_can_be_held(optimizer, group) for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        if "capturable" not in group:
            continue
        group["capturable"] = able
        if able:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        # Where the host reads them, it would wait for a GPU at each parameter.
        _move_counts(optimizer, group, device if able or group.get("fused") else _HOST)
    return [group["lr"] for group in optimizer.param_groups] if able else []


_HOST = torch.device("cpu")


def _can_be_held(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether its steps are kernels alone.

    Some of torch's loops over single parameters read the learning rate on the host: RMSprop's,
    Adadelta's. Adam's does not.
    """
    if "capturable" not in group:
        return False
    loops = group.get("foreach") is False or bool(group.get("differentiable"))
    return not loops or isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)


def _move_counts(optimizer: Optimizer, group: dict[str, Any], device: torch.device) -> None:
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        for name in ("step", "mu_product"):  # the second is NAdam's
            if isinstance(state.get(name), Tensor):
                state[name] = state[name].to(device)


def set_lr(group: dict[str, object], lr: float) -> None:
    """Set a learning rate where a graph would read it, if it is a tensor."""
    held = group["lr"]
    if isinstance(held, Tensor):
        held.fill_(lr)
    else:
        group["lr"] = lr


def hold_lr(optimizer: Optimizer, held: list[Tensor]) -> None:
    """Move learning rates that were replaced, by numbers say, into the tensors a graph reads."""
    for group, lr in zip(optimizer.param_groups, held, strict=False):
        if group["lr"] is not lr:
            group["lr"] = lr.fill_(group["lr"])
