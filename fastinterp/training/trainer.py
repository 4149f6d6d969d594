"""The one trainer: a method's inner maximisation, its outer loss, one optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..attacks.checks import require_labels
from ..attacks.threats import require_radius
from ..device import usable_device
from ..errors import InputError
from ..models.gap import GapClassifier
from .feed import Source
from .methods import Method
from .robust_loss import require_gap, require_inner, robust_loss
from .run import Run
from .schedule import EpsSchedule, LinearEps, decay, make_schedule
from .seeds import derive

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


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

    Attributes:
        model, optimizer, method, seed: as given.
        step: how many optimisation steps were done.
    """

    def __init__(
        self,
        model: GapClassifier,
        method: Method,
        *,
        eps: float = 0.3,
        steps: int = 40,
        step_size: float = 0.01,
        optimizer: Optimizer | MakeOptimizer | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        lr: float = 1e-4,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
    ) -> None:
        require_gap(model)
        require_inner(method, eps, steps, step_size, random_start)
        self.model = model if device is None else model.to(usable_device(device))
        self.method = method
        self.eps, self.steps, self.step_size = eps, steps, step_size
        self.random_start, self.seed = random_start, seed
        self.eps_schedule = make_schedule(eps, eps_schedule)
        self.lr_milestones = tuple(lr_milestones)
        self.optimizer = _optimizer(self.model, optimizer, lr)
        self._base_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.device = next(self.model.parameters()).device
        self._generator = torch.Generator(device=self.device)

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
        }
        if self.method.inner is not None:
            settings |= {
                "eps": self.eps,
                "steps": self.steps,
                "step_size": self.step_size,
                "eps_schedule": _describe(self.eps_schedule),
                "random_start": self.random_start,
            }
        return settings | self.method.options

    def current_eps(self) -> float:
        """The radius that the next step will use."""
        return self.eps if self.eps_schedule is None else self.eps_schedule(self.step)

    def training_step(self, x: Tensor, y: Tensor) -> StepResult:
        """One optimisation step on a batch. The model's train or eval mode is left as it is.

        Nothing waits for a GPU; pixels and labels are not range-checked here.

        Args:
            x: images [N, C_in, H, W] in [0, 1].
            y: true classes [N].

        Raises:
            InputError: the labels are no integers, or not one for each image.
        """
        y = require_labels("training_step", "labels", y, x)
        x = x.to(self.device, non_blocking=True)
        y = y.to(self.device, non_blocking=True)
        self._set_lr()
        self._generator.manual_seed(derive(self.seed, "start", self.step))
        loss, clean, adv = robust_loss(
            self.model,
            self.method,
            x,
            y,
            eps=self.current_eps(),
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.random_start,
            generator=self._generator,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return StepResult(
            loss.detach(),
            _count_right(clean.logits, y),
            None if adv is None else _count_right(adv.logits, y),
            len(x),
        )

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
    ) -> list[dict[str, Any]]:
        """Train for a number of epochs.

        With `out`, that folder gets `state.safetensors` (everything needed to go on; written after
        each epoch, every `checkpoint_seconds` within one, and on Ctrl-C), `history.json`, and at
        the end `model.safetensors`. The last is left out for a wrapped network, which no file can
        say how to build; `state.safetensors` has its weights as model/NAME. A run stopped at any
        moment, even by SIGKILL, and resumed gives the weights it would have given; on a CPU with
        the same number of threads, bit for bit.

        Args:
            train_data: an ImageData, a pair (images [N, ...] uint8 or float in [0, 1], labels [N])
                or a DataLoader of such batches. The first two move to the model's device, are
                shuffled there, and lose each epoch's last, partial batch. A DataLoader sets its
                own batch size and order, so after a resume within an epoch the rest of that epoch
                is drawn afresh.
            epochs: in all, those of the run that is resumed included.
            batch_size: images in a step.
            val_data: measured after each epoch, clean accuracy only.
            out: folder for the results; None writes nothing.
            resume: go on from what `out` holds, or begin if it holds nothing.
            progress: show a bar with loss, clean and robust accuracy, and images a second.
            checkpoint_seconds: at most so much work is lost to a kill.
            info: kept in `model.safetensors` beside the settings.

        Returns:
            A row an epoch: epoch, step, eps, lr, loss, clean_accuracy, robust_accuracy (on the x'
            of training; None for a method without), val_accuracy (with val_data), images, seconds.

        Raises:
            InputError: the data do not fit; `out` holds a run and `resume` is False, or one with
                other settings; the loss left the numbers (the last good state is kept).
        """
        run = Run(self, train_data, epochs, batch_size, val_data, progress, info or {})
        return run.go(None if out is None else Path(out), resume, checkpoint_seconds)

    def _set_lr(self) -> None:
        if self.lr_milestones:
            factor = decay(self.step, self.lr_milestones)
            for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
                group["lr"] = base * factor


def _count_right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == y).sum()


def _describe(schedule: EpsSchedule | None) -> Any:
    if isinstance(schedule, LinearEps):
        return [schedule.start, schedule.end]
    return schedule if schedule is None else getattr(schedule, "__qualname__", repr(schedule))


def _optimizer(
    model: nn.Module, optimizer: Optimizer | MakeOptimizer | None, lr: float
) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("The model has no parameter to train: every requires_grad is False.")
    if optimizer is not None:
        return optimizer(parameters)
    require_radius("lr", lr)
    return torch.optim.Adam(parameters, lr=lr)
