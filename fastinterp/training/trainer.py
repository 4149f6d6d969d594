"""The one trainer: a method's inner maximisation, its outer loss, one optimisation step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._utils.described import describe
from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import require_whole
from ..attacks.modes import convolutions_in
from ..attacks.outputs import Precision
from ..attacks.threats import Threat
from ..models.compiled import CompiledClassifier
from ..models.gap import GapClassifier, require_fit
from ..ops.pgd_step import Norm
from .feed import Source
from .graphs import (
    CudaRecorder,
    GraphedIterations,
    Measured,
    hold_lr,
    make_capturable,
    set_lr,
    settings_of,
    state_of,
)
from .methods import Method
from .methods import method as method_named
from .optimizer import MakeOptimizer, make_optimizer
from .precision import usable_precision
from .robust_loss import ball, require_gap, require_inner, require_known_labels, robust_loss
from .run import Run
from .schedule import EpsSchedule, LinearEps, decay, make_schedule, require_milestones
from .seeds import derive
from .validation import Attack


@dataclass(frozen=True)
class StepResult:
    """What one optimisation step measured. Tensors stay on the device, so nothing waits for it.

    Attributes:
        loss: the outer loss, mean over the batch, a scalar.
        clean_correct: how many images were classified rightly at x, before the step.
        robust_correct: likewise at x'; None for a method without x'.
        images: how many images the batch held.
    """

    loss: Tensor
    clean_correct: Tensor
    robust_correct: Tensor | None
    images: int

    @property
    def clean_accuracy(self) -> Tensor:
        return self.clean_correct / self.images

    @property
    def robust_accuracy(self) -> Tensor | None:
        return None if self.robust_correct is None else self.robust_correct / self.images


class Trainer:
    """Trains a GapClassifier by a method of the table (`fastinterp.training.METHODS`).

    `IntTrainer` and its sisters are this class with a method filled in; they document the settings.
    A method made by hand (a `Method` of any objectives) trains here too.

    `method` is a `Method`, or the name of one with its own gamma.

    Attributes:
        model, optimizer, seed: as given.
        method: the `Method`.
        step: how many optimisation steps were done.
    """

    def __init__(
        self,
        model: GapClassifier,
        method: Method | str,
        *,
        eps: float = 0.3,
        steps: int = 40,
        step_size: float | None = None,
        optimizer: Optimizer | MakeOptimizer | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        lr: float | None = None,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
        precision: Precision = "float32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        norm: Norm = "linf",
    ) -> None:
        require_gap(model)
        method = method_named(method) if isinstance(method, str) else method
        self.eps, self.steps, self.step_size = require_inner(
            method, eps, steps, step_size, random_start, norm
        )
        self.norm: Norm = norm
        self.model = model if device is None else model.to(usable_device(device))
        self.method = method
        self.random_start, self.seed = random_start, require_whole("seed", seed)
        self.eps_schedule = make_schedule(self.eps, eps_schedule)
        self.lr_milestones = require_milestones(lr_milestones)
        self.optimizer = make_optimizer(self.model, optimizer, lr)
        self._base_lr = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step = 0
        self.device = next(self.model.parameters()).device
        self._generator = torch.Generator(device=self.device)
        self.precision = usable_precision(precision, self.device)
        self.channels_last = channels_last
        if channels_last and self.device.type == "cuda":  # cuDNN wants the kernels so, too
            self.model.to(memory_format=torch.channels_last)
        self.network = CompiledClassifier(self.model) if compile else self.model
        self._use_graphs(cuda_graphs)

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share with the one that it goes on from, as JSON values."""
        settings: dict[str, Any] = {
            "method": self.method.name,
            "gamma": self.method.gamma,
            "seed": self.seed,
            "optimizer": type(self.optimizer).__name__,
            "lr": self._base_lr,
            "lr_milestones": list(self.lr_milestones),
            "precision": self.precision,
        }
        if self.method.inner is not None:
            settings |= {
                "eps": self.eps,
                "steps": self.steps,
                "step_size": self.step_size,
                "norm": self.norm,
                "eps_schedule": _describe(self.eps_schedule),
                "random_start": self.random_start,
            }
        return settings | self.method.options

    def __repr__(self) -> str:
        return describe(self, {"model": self.model, **self.settings})

    def current_eps(self) -> float:
        """The radius that the next step will use."""
        return self.eps if self.eps_schedule is None else self.eps_schedule(self.step)

    @property
    def graph_replays(self) -> int:
        """How many steps so far were replays of a CUDA graph; 0 where none was captured."""
        return 0 if self._graphs is None else self._graphs.replays

    def training_step(self, x: Tensor, y: Tensor) -> StepResult:
        """One optimisation step on a batch. The model's train or eval mode is left as it is.

        Nothing waits for a GPU: pixels are not range-checked here, nor labels that lie there.

        Args:
            x: images [N, C_in, H, W] in [0, 1].
            y: true classes [N].

        Raises:
            InputError: x is no batch of images that the model takes; the labels are no integers,
                not one for each image, or (on a CPU) not among the classes.
        """
        y = require_known_labels("training_step", y, x, self.model.num_classes)
        x = x.to(self.device, non_blocking=True)
        require_fit("training_step", self.model, x)
        y = y.to(self.device, non_blocking=True)
        self._set_lr()
        self._generator.manual_seed(derive(self.seed, "start", self.step))
        # Without an inner loop eps decides nothing; passed on, it would cost a second graph.
        eps = 0.0 if self.method.inner is None else self.current_eps()
        with convolutions_in(self.precision):
            measured = self._run(x, y, eps)
        self.step += 1
        return StepResult(*measured, len(x))

    def _run(self, x: Tensor, y: Tensor, eps: float) -> Measured:
        self._follow_optimizer()
        graphs = self._graphs if self.norm == "linf" else None
        if graphs is None or torch.is_autocast_enabled(x.device.type) or not graphs.fits(x):
            measured = self._iterate(x, y, ball(eps, self.step_size, self.norm))
        else:
            fixed = self._fixed_by_capture()
            measured = graphs(self._iterate, x, y, eps, self.step_size, self._generator, fixed)
        if not self._step_inside:
            self.optimizer.step()
        return measured

    def _fixed_by_capture(self) -> Hashable:
        """The settings that a captured step would go on using after a change."""
        ours = (self.method, self.steps, self.random_start, self.precision, self.channels_last)
        step = settings_of(self.optimizer) if self._step_inside else None
        return ours, state_of(self.network), step

    def _iterate(self, x: Tensor, y: Tensor, threat: Threat | None) -> Measured:
        """Everything of a step that happens on the device; a CUDA graph may hold it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, clean, adv = robust_loss(
            self.network,
            self.method,
            x,
            y,
            threat=threat,
            steps=self.steps,
            random_start=self.random_start,
            generator=self._generator,
            precision=self.precision,
            channels_last=self.channels_last,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():  # before the step, which changes what logits not yet asked for are
            right = None if adv is None else _count_right(adv.logits, y)
            measured = Measured(loss.detach(), _count_right(clean.logits, y), right)
        if self._step_inside:
            self.optimizer.step()
        return measured

    def _use_graphs(self, wanted: bool | None) -> None:
        on_gpu = self.device.type == "cuda"
        if wanted and not on_gpu:
            raise InputError(
                f"cuda_graphs=True needs a network on a CUDA GPU, and it is on {self.device}; "
                "leave cuda_graphs out or move it."
            )
        if wanted and self.norm != "linf":
            raise InputError(
                f'cuda_graphs=True records random starts of norm="linf" alone, got {self.norm!r}; '
                "leave cuda_graphs out."
            )
        self._graphs: GraphedIterations | None = None
        if on_gpu and wanted is not False and self.norm == "linf":
            self._graphs = GraphedIterations(CudaRecorder(self.device, [*self.model.parameters()]))
        self._adapt_optimizer()

    def _adapt_optimizer(self) -> None:
        """After the optimiser was made, or a state with other tensors was loaded into it."""
        graphed = self._graphs is not None
        on_gpu = self.device.type == "cuda"
        self._lr = make_capturable(self.optimizer, self.device, wanted=graphed and on_gpu)
        self._step_inside = bool(self._lr) or not graphed
        self._adapted = self.optimizer.state, len(self.optimizer.param_groups)
        if self._graphs is not None:
            self._graphs.forget()

    def _follow_optimizer(self) -> None:
        """Let what was done to the optimiser since the last step reach a graph."""
        state, groups = self._adapted
        if self.optimizer.state is not state or len(self.optimizer.param_groups) != groups:
            self._adapt_optimizer()
        hold_lr(self.optimizer, self._lr)

    def fit(
        self,
        train_data: Source,
        epochs: int,
        batch_size: int = 50,
        val_data: Source | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        checkpoint_seconds: float = 60.0,
        info: dict[str, Any] | None = None,
        val_attack: Attack | None = None,
    ) -> list[dict[str, Any]]:
        """Train for a number of epochs.

        With `out`, that folder gets `state.safetensors` (everything needed to go on; written after
        each epoch, every `checkpoint_seconds` within one, and on Ctrl-C), `history.json`, and at
        the end `model.safetensors`. With `val_attack`, or for a method without x' with `val_data`,
        `best.safetensors` is the network after the epoch that did best on those images; robust
        accuracy often falls again late in training. Neither is written for a wrapped network, which
        no file can say how to build; `state.safetensors` has its weights as model/NAME.

        A run stopped at any moment, even by SIGKILL, and resumed gives the weights it would have
        given; on a CPU with the same number of threads, bit for bit.

        Args:
            train_data: an ImageData, a pair (images [N, ...] uint8 or float in [0, 1], labels [N])
                or a DataLoader of such batches. The first two move to the model's device, are
                shuffled there, and lose each epoch's last, partial batch. A DataLoader sets its
                own batch size and order, so after a resume within an epoch the rest of that epoch
                is drawn afresh.
            epochs: in all, those of the run that is resumed included.
            batch_size: images in a step; all of them where there are fewer.
            val_data: measured after each epoch, in eval mode.
            out: folder for the results; None writes nothing.
            resume: go on from what `out` holds, or begin if it holds nothing.
            progress: show a bar with loss, clean and robust accuracy, and images a second.
            checkpoint_seconds: at most so much work is lost to a kill.
            info: kept in `model.safetensors` beside the settings.
            val_attack: (x, y) -> x_adv, made with this trainer's model, such as `PGD(model, eps)`:
                val_data are measured under it too.

        Returns:
            A row an epoch: epoch, step, eps, lr, loss, clean_accuracy, robust_accuracy (on the x'
            of training; None for a method without), val_accuracy (with val_data),
            val_robust_accuracy (with val_attack), images, seconds.

        Raises:
            InputError: a setting is out of its range; the data do not fit (of a DataLoader, pixels
                are looked at in the first batch); `out` is a file, or holds a run and `resume` is
                False, or one with other settings; the loss left the numbers (the last good state is
                kept).
        """
        if out == "":
            raise InputError("out must name a folder, got an empty name.")
        info = info or {}
        run = Run(self, train_data, epochs, batch_size, val_data, progress, info, val_attack)
        return run.go(None if out is None else Path(out), resume, checkpoint_seconds)

    def _set_lr(self) -> None:
        if self.lr_milestones:
            factor = decay(self.step, self.lr_milestones)
            for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
                set_lr(group, base * factor)


def _count_right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == y).sum()


def _describe(schedule: EpsSchedule | None) -> Any:
    if isinstance(schedule, LinearEps):
        return [schedule.start, schedule.end]
    return schedule if schedule is None else getattr(schedule, "__qualname__", repr(schedule))
