"""Training iterations as CUDA graphs: recorded once, then started with a single call.

An iteration of a small network is hundreds of short kernels, and a GPU waits for Python between
them. A graph has fixed addresses, so everything that changes from step to step lies in buffers: the
batch, eps, and the draws of the random start. Each replay reads them anew.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
        self._stream: torch.cuda.Stream | None = None

    def warm_up(self, run: Replay) -> Measured:
        # Capture wants kernels loaded and states allocated by a stream other than the default one.
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            measured = run()
        current.wait_stream(self._stream)
        return measured

    def record(self, run: Replay) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with (
            _usable_afterwards(self.device),
            torch.cuda.device(self.device),
            # thread_local: threads that load data go on using the GPU meanwhile.
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            measured = run()
        gradients = [parameter.grad for parameter in self.parameters]

        def replay() -> Measured:
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            # The next replay writes over its results; who keeps a StepResult keeps these.
            loss, clean, robust = measured
            return Measured(loss.clone(), clean.clone(), None if robust is None else robust.clone())

        return replay


@contextmanager
def _usable_afterwards(device: torch.device) -> Iterator[None]:
    """A capture that breaks off leaves torch's generator believing that it goes on; renew it."""
    try:
        yield
    except RuntimeError:
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
        raise


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

    def __init__(self, iterate: Iterate, x: Tensor, y: Tensor, step_size: float, moves: bool):
        self.x, self.y = torch.empty_like(x), torch.empty_like(y)
        self.eps = x.new_zeros(1)
        self.draws = draw_like(x, None)
        # Made here and not in the iteration: it checks its radius, which waits for the device.
        self.ball = DrawnBall(self.eps, step_size, draws=self.draws) if moves else None
        self.iterate = iterate
        self.runs = 0
        self.replay: Replay | None = None

    def fill(self, x: Tensor, y: Tensor, eps: float, generator: torch.Generator) -> None:
        self.x.copy_(x)
        self.y.copy_(y)
        if self.ball is not None:
            self.eps.fill_(eps)
            self.draws.uniform_(generator=generator)

    def run(self) -> Measured:
        return self.iterate(self.x, self.y, self.ball)


class GraphedIterations:
    """Runs a trainer's iterations: the first few of a kind as they are, then as a graph.

    A batch smaller than those before it runs as it is, and so does everything once a capture has
    failed, which one warning says.

    Args:
        iterate: the iteration, a function of (x, y, threat) that reads and writes nothing else but
            tensors that stay where they are.
        recorder: records it.
    """

    def __init__(self, iterate: Iterate, recorder: Recorder) -> None:
        self.iterate, self.recorder = iterate, recorder
        self.failed = False
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
        x: Tensor,
        y: Tensor,
        eps: float,
        step_size: float,
        generator: torch.Generator,
        settings: Hashable,
    ) -> Measured:
        """One iteration.

        Args:
            eps: radius of the linf ball; 0 is a kind of its own, without an inner loop.
            settings: whatever else the iteration depends on and no buffer holds.
        """
        kind = self._kind(x, y, step_size, eps != 0, settings)
        kind.fill(x, y, eps, generator)
        kind.runs += 1
        if kind.replay is None and kind.runs > WARM_UP:
            kind.replay = self._record(kind)
        return self.recorder.warm_up(kind.run) if kind.replay is None else kind.replay()

    def _kind(
        self, x: Tensor, y: Tensor, step_size: float, moves: bool, settings: Hashable
    ) -> _Kind:
        key = (x.shape, x.dtype, y.dtype, step_size, moves, settings)
        if key not in self._kinds:
            self._kinds[key] = _Kind(self.iterate, x, y, step_size, moves)
            if len(self._kinds) > MOST_GRAPHS:
                self._kinds.popitem(last=False)
        return self._kinds[key]

    def _record(self, kind: _Kind) -> Replay | None:
        try:
            return self.recorder.record(kind.run)
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
    """What of a network a graph has fixed: its modes, and where its parameters lie."""
    modes = tuple(module.training for module in model.modules())
    return modes, tuple((p.data_ptr(), p.requires_grad) for p in model.parameters())


def make_capturable(optimizer: Optimizer, device: torch.device, wanted: bool) -> bool:
    """Let a graph hold the optimiser's step, if it can: learning rate and counts on the device.

    Undoes that where it is not wanted, after a state that was saved on a GPU was loaded.

    Returns:
        Whether a graph can hold it. Otherwise the step is left as it is, to run after a replay.
    """
    able = wanted and all("capturable" in group for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = able
        if able and not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
    for state in optimizer.state.values():
        if able and isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(device)
    return able


def set_lr(group: dict[str, object], lr: float) -> None:
    """Set a learning rate where a graph would read it, if it is a tensor."""
    held = group["lr"]
    if isinstance(held, Tensor):
        held.fill_(lr)
    else:
        group["lr"] = lr
