"""The settings of training: one frozen dataclass, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.require import (
    require_count,
    require_nonnegative,
    require_number,
    require_one_of,
    require_positive,
    require_whole,
)
from ..attacks.checks import require_pixel_eps
from ..attacks.objectives import require_climbable
from ..attacks.outputs import Precision
from ..attacks.step_size import default_step_size, warn_if_short
from ..attacks.threats import BALLS
from ..ops.pgd_step import Norm
from .methods import Method
from .optimizer import MakeOptimizer
from .schedule import EpsSchedule, LinearEps, linear_eps
from .scheduler import SHAPES, Every, MakeScheduler

Outer = Literal["float32", "bf16"]

FAST: dict[str, Any] = {"precision": "bf16", "channels_last": True, "compile": True}
"""Settings for large networks on a GPU, beside CUDA graphs, which are the default there:
`IntTrainer(model, **FAST)`."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings that every trainer takes, as keywords or as one object.

    Attributes:
        eps: radius of the ball around x in which x' is sought, in pixel units.
        steps: number of steps of the inner loop, which is projected gradient ascent.
        step_size: size of such a step; by default 0.01 in linf, as in the paper, else
            2.5 eps / steps.
        norm: norm of the ball, "linf", "l2" or "l1"; steps are those of `attacks.PGD`. CUDA graphs
            serve linf only.
        random_start: start the inner loop at a point drawn uniformly from the ball.
        eps_schedule: (start, end) keeps eps at 0 up to step `start` and then increases it linearly
            until step `end`; or a function from the step to eps; or None for a constant eps.
        seed: determines the order of the images and the random starts.
        lr: learning rate, 1e-4 by default (sgd: 0.1). An optimizer of your own has its own.
        lr_milestones: the learning rate is divided by 10 after each of these steps.
        optimizer: "adam", "adamw" or "sgd" (with Nesterov momentum 0.9), an optimizer of the
            model's parameters, or a function that makes one from them, such as torch.optim.RAdam.
        weight_decay: of the optimizer, if it is given by name.
        scheduler: a function that makes one of torch's schedulers of the optimizer; or "cosine"
            (to 0) or "triangle" (from 0 to lr and back), over the steps of `fit`.
        scheduler_every: what torch's scheduler counts, "epoch" or "step".
        clip_grad: the gradient of all parameters is scaled down to this l2 norm.
        label_smoothing: the share of a label that all classes get alike, in the outer loss.
        ema: decay of a moving average of the weights, such as 0.999. The average is what `fit`
            validates and keeps as the best network; `trainer.ema` is it.
        awp: size of the adversarial weight perturbation (Wu et al., 2020), such as 0.005: the outer
            loss is taken where the weights of each layer are moved by that share of their norm.
        device: where to move the model; None leaves it.
        precision: "float32" is exact, on a GPU too. "tf32" lets a GPU use TF32 in convolutions and
            matrix products (a CPU computes float32). "bf16" runs the passes of the inner loop in
            bfloat16 if the hardware supports it; x', its projection, the discrepancy and the outer
            loss stay in float32.
        outer_precision: "bf16" runs the network's passes of the outer loss in bfloat16 too; weights
            and what is computed from features and logits stay in float32.
        channels_last: use that memory format for the images and, on a GPU, for the network. None
            uses it for images on a CPU, where convolutions are faster with it.
        compile: compile the network's features with torch.compile.
        sync_batchnorm: on several processes, normalise with the statistics of all processes'
            images, as one process would.
        cuda_graphs: replay whole steps as CUDA graphs. None does so on a GPU, if the step can be
            captured.

    Raises:
        InputError: a setting is out of its range.
    """

    eps: float = 0.3
    steps: int = 40
    step_size: float = None  # type: ignore[assignment]  # __post_init__ replaces None
    norm: Norm = "linf"
    random_start: bool = True
    eps_schedule: EpsSchedule | tuple[int, int] | None = None
    seed: int = 0
    lr: float | None = None
    lr_milestones: Sequence[int] = ()
    optimizer: Optimizer | MakeOptimizer | str | None = None
    weight_decay: float = 0.0
    scheduler: MakeScheduler | str | None = None
    scheduler_every: Every = "epoch"
    clip_grad: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    awp: float = 0.0
    device: torch.device | str | None = None
    precision: Precision = "float32"
    outer_precision: Outer = "float32"
    channels_last: bool | None = None
    compile: bool = False
    sync_batchnorm: bool = False
    cuda_graphs: bool | None = None

    def __post_init__(self) -> None:
        norm = require_one_of("norm", self.norm, list(BALLS))
        eps = require_nonnegative("eps", self.eps)
        require_pixel_eps("Training", norm, eps)
        steps = require_count("steps", self.steps, 0)
        size = default_step_size(norm, eps, steps) if self.step_size is None else self.step_size
        require_one_of("precision", self.precision, get_args(Precision))
        require_one_of("outer_precision", self.outer_precision, get_args(Outer))
        require_one_of("scheduler_every", self.scheduler_every, get_args(Every))
        if isinstance(self.scheduler, str):
            require_one_of("scheduler", self.scheduler, SHAPES)
        if self.scheduler is not None and self.lr_milestones:
            raise InputError(
                "scheduler and lr_milestones both set the learning rate; leave one out."
            )
        for name, most in (("label_smoothing", self.label_smoothing), ("ema", self.ema or 0.0)):
            if not 0 <= require_number(name, most) < 1:
                raise InputError(f"{name} must lie in [0, 1), got {most!r}.")
        checked: dict[str, Any] = {
            "eps": eps,
            "steps": steps,
            "step_size": require_nonnegative("step_size", size),
            "eps_schedule": _checked_schedule(self.eps_schedule),
            "seed": require_whole("seed", self.seed),
            "lr": None if self.lr is None else require_nonnegative("lr", self.lr),
            "weight_decay": require_nonnegative("weight_decay", self.weight_decay),
            "clip_grad": self.clip_grad and require_positive("clip_grad", self.clip_grad),
            "awp": require_nonnegative("awp", self.awp),
            "lr_milestones": _checked_milestones(self.lr_milestones),
            "device": None if self.device is None else usable_device(self.device),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def eps_at(self, step: int) -> float:
        """The radius of the ball at a step, counted from 0."""
        if self.eps_schedule is None:
            return self.eps
        if isinstance(self.eps_schedule, tuple):
            return linear_eps(self.eps, *self.eps_schedule, step)
        return self.eps_schedule(step)

    def check_method(self, method: Method) -> None:
        """Check that these settings suit the inner loop of a method.

        Raises:
            InputError: the loop would start where the method's objective has no gradient.
        """
        if method.one_step is not None and self.norm != "linf":
            raise InputError(f'{method.name} takes its step in norm="linf", got {self.norm!r}.')
        if method.inner is not None and method.one_step is None:
            require_climbable(method.inner, self.random_start)
            warn_if_short(method.name, self.eps, self.step_size, self.steps)


def _checked_schedule(given: Any) -> EpsSchedule | tuple[int, int] | None:
    if given is None or callable(given):
        schedule: EpsSchedule | None = given
        return schedule
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InputError(
            "eps_schedule must be (start, end) in steps, a function of the step, or None, "
            f"got {given!r}."
        )
    start, end = (require_whole("eps_schedule: a step", step) for step in given)
    LinearEps(0.0, start, end)  # checks their order
    return start, end


def _checked_milestones(steps: Any) -> tuple[int, ...]:
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise InputError(f"lr_milestones must be a list of steps, got {steps!r}.")
    return tuple(require_count("lr_milestones: a step", step, 0) for step in steps)
