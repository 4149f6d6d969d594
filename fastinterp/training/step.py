"""One optimisation step: the search for x', the loss, backward, the optimizer."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._utils import processes
from .._utils.errors import InputError
from ..attacks.checks import count_classes
from ..attacks.modes import convolutions_in
from ..attacks.threats import Threat
from ..models.compiled import CompiledClassifier
from ..models.gap import GapClassifier, require_fit
from .averaging import Average
from .awp import perturbed, perturbed_weights
from .config import TrainConfig
from .distributed import Share, add_up, average, can_capture, exchange_share, seed_randomness
from .graphs import CudaRecorder, GraphedIterations, module_state
from .methods import Method
from .optimizer import (
    group_settings,
    make_capturable,
    make_optimizer,
    restore_lr_tensors,
    set_lr,
)
from .precision import usable_precision
from .result import StepResult
from .robust_loss import require_known_labels, require_trainable, robust_loss, threat_of
from .schedule import decay
from .scheduler import advance, make_scheduler, shape_factor
from .seeds import derive
from .sync_norm import synchronise

SETTINGS = frozenset(field.name for field in fields(TrainConfig))
SETTINGS -= {"optimizer", "scheduler", "ema", "device"}


class Stepper:
    """A network, its optimizer and a method: what takes one step after the other.

    Attributes:
        model: the network, trained in place.
        method: the `Method`.
        config: the `TrainConfig`. Replace it to change a setting between two steps; device, lr,
            optimizer, compile and cuda_graphs are read when the trainer is made.
        optimizer: the optimizer.
        step: the number of optimisation steps done.
        epoch: the number of epochs done by all calls of `fit`; it determines the order of images.
    """

    def __init__(self, model: nn.Module, method: Method, config: TrainConfig) -> None:
        require_trainable(model, method)
        config.check_method(method)
        processes.join()
        self.model = model if config.device is None else model.to(config.device)
        if config.sync_batchnorm and processes.world() > 1:
            synchronise(self.model)
        self.device = next(self.model.parameters()).device
        self.method = method.smoothed(config.label_smoothing) if config.label_smoothing else method
        narrow = usable_precision(config.outer_precision, self.device)
        self.config = replace(
            config,
            precision=usable_precision(config.precision, self.device),
            outer_precision="bf16" if narrow == "bf16" else "float32",
        )
        self.optimizer = make_optimizer(
            self.model, config.optimizer, config.lr, config.weight_decay
        )
        self.total_steps: int | None = None  # of a run; `fit` knows it
        self.step = self.epoch = 0
        self._classes: int | None = None  # of a network that does not say it, once it is known
        self._base_lr = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scheduler = make_scheduler(config.scheduler, self.optimizer)
        self.average = None if not config.ema else Average(self.model, config.ema)
        self._generator = torch.Generator(device=self.device)
        if config.channels_last and self.device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        self.network = _compiled(self.model) if config.compile else self.model
        self._graphs = self._make_graphs()
        self._adapt_optimizer()

    def __setattr__(self, name: str, value: object) -> None:
        if name in SETTINGS:
            raise InputError(
                f"{name} is a setting of trainer.config, which is frozen; change it by "
                f"trainer.config = dataclasses.replace(trainer.config, {name}=...)."
            )
        super().__setattr__(name, value)

    @property
    def graph_replays(self) -> int:
        """How many steps so far were replays of a CUDA graph; 0 if none was captured."""
        return 0 if self._graphs is None else self._graphs.replays

    def count_classes(self, images: Tensor) -> int:
        """C; a network that does not say it is asked once for the logits of an image [N, ...].

        Raises:
            InputError: the network gives no logits for such images.
        """
        if isinstance(self.model, GapClassifier):
            return self.model.num_classes
        if self._classes is None:
            x = images[:1].to(self.device)
            x = x / 255 if x.dtype == torch.uint8 else x
            require_fit("training", self.model, x)
            self._classes = count_classes("training", self.model, x, gradient=False)
        return self._classes

    def current_eps(self) -> float:
        """The radius that the next step will use."""
        return self.config.eps_at(self.step)

    def training_step(self, x: Tensor, y: Tensor, share: Share | None = None) -> StepResult:
        """One optimisation step on a batch. The model's train or eval mode is left as it is.

        Nothing waits for a GPU: the ranges of pixels and labels are checked on a CPU only.
        On several processes each gives its own images, and all take the same step.

        Args:
            x: images [N, C_in, H, W] in [0, 1].
            y: true classes [N].
            share: which part of the processes' batch they are; None asks the other processes.

        Returns:
            What was measured on the batch, that of all processes.

        Raises:
            InputError: x is no batch of images that the model takes; the labels are no integers,
                not one for each image, or (on a CPU) not among the classes.
        """
        y = require_known_labels("training_step", y, x, self.count_classes(x))
        x = x.to(self.device, non_blocking=True)
        require_fit("training_step", self.model, x)
        y = y.to(self.device, non_blocking=True)
        self._follow_optimizer()
        self._generator.manual_seed(derive(self.config.seed, "start", self.step))
        if processes.world() > 1:
            share = exchange_share(len(x)) if share is None else share
            seed_randomness(self.config.seed, self.step)
        # A method without an inner loop needs no eps; a changing one would cost a second graph.
        eps = 0.0 if self.method.inner is None else self.config.eps_at(self.step)
        config, graphs = self.config, self._graphs
        with convolutions_in(config.precision):
            if (
                graphs is None
                or config.norm != "linf"
                or self.method.one_step is not None
                or torch.is_autocast_enabled(x.device.type)
                or not graphs.accepts(x)
            ):
                threat = threat_of(self.method, config, eps, share)
                result = self._iterate(share, x, y, threat)
            else:
                fixed = self._fixed_by_capture()
                iterate = partial(self._iterate, share)
                result = graphs(
                    iterate, x, y, eps, config.step_size, self._generator, fixed, share=share
                )
            if not self._step_inside:
                self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update()
        if self.scheduler is not None and self.config.scheduler_every == "step":
            advance(self.scheduler, None)
        return result

    def end_epoch(self, loss: float) -> None:
        """Let a scheduler that follows epochs know of one, and of its mean loss."""
        if self.scheduler is not None and self.config.scheduler_every == "epoch":
            advance(self.scheduler, loss)

    @property
    def ema(self) -> nn.Module | None:
        """The network with the moving average of the weights, if there is one."""
        return None if self.average is None else self.average.averaged.module

    def _iterate(
        self, share: Share | None, x: Tensor, y: Tensor, threat: Threat | None
    ) -> StepResult:
        """Everything of a step that happens on the device; a CUDA graph may hold it."""
        self.optimizer.zero_grad(set_to_none=True)
        outer = partial(
            robust_loss,
            self.network,
            self.method,
            self.config,
            x,
            y,
            threat=threat,
            generator=self._generator,
            precision=self.config.precision,
            images=None if share is None else share.images,
        )
        loss, clean, adv = outer()
        if self.config.awp:
            weights = perturbed_weights(self.model)
            gradients: Any = torch.autograd.grad(loss, weights, allow_unused=True)
            if share is not None:
                gradients = add_up(
                    [
                        torch.zeros_like(w) if g is None else g
                        for w, g in zip(weights, gradients, strict=True)
                    ]
                )
            with perturbed(weights, gradients, self.config.awp):
                moved = outer(x_adv=None if adv is None else adv.x)
                moved.loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():  # before the step, since logits may be computed only now
            clean_correct = (clean.logits.argmax(dim=1) == y).sum()
            robust_correct = None if adv is None else (adv.logits.argmax(dim=1) == y).sum()
        result = StepResult(loss.detach(), clean_correct, robust_correct, len(x))
        if share is not None:
            result = average(self.model, result, share)
        if self.config.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        if self._step_inside:
            self.optimizer.step()
        return result

    def _make_graphs(self) -> GraphedIterations | None:
        wanted, linf = self.config.cuda_graphs, self.config.norm == "linf"
        on_gpu = self.device.type == "cuda"
        if wanted and not on_gpu:
            raise InputError(
                f"cuda_graphs=True needs a network on a CUDA GPU, and it is on {self.device}; "
                "leave cuda_graphs out or move the network."
            )
        if wanted and not linf:
            raise InputError(
                f'cuda_graphs=True needs norm="linf", got {self.config.norm!r}; '
                "leave cuda_graphs out."
            )
        if not on_gpu or not linf or wanted is False or not can_capture():
            return None
        return GraphedIterations(CudaRecorder(self.device, [*self.model.parameters()]))

    def _fixed_by_capture(self) -> Hashable:
        """What a captured step would go on using after a change."""
        of_optimizer = group_settings(self.optimizer) if self._step_inside else None
        return self.method, self.config, module_state(self.network), of_optimizer

    def _adapt_optimizer(self) -> None:
        """Prepare the optimizer for graphs; again after a state was loaded into it."""
        graphed = self._graphs is not None
        on_gpu = self.device.type == "cuda"
        self._lr_tensors = make_capturable(self.optimizer, self.device, wanted=graphed and on_gpu)
        self._step_inside = bool(self._lr_tensors) or not graphed
        self._adapted = self.optimizer.state, len(self.optimizer.param_groups)
        if self._graphs is not None:
            self._graphs.forget()

    def _follow_optimizer(self) -> None:
        """Set the step's learning rate, and let changes made to the optimizer reach a graph."""
        if self.config.lr_milestones:
            factor = decay(self.step, self.config.lr_milestones)
            for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
                set_lr(group, base * factor)
        if isinstance(self.config.scheduler, str):
            factor = shape_factor(self.config.scheduler, self.step, self.total_steps)
            for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
                set_lr(group, base * factor)
        state, groups = self._adapted
        if self.optimizer.state is not state or len(self.optimizer.param_groups) != groups:
            self._adapt_optimizer()
        if self._lr_tensors:
            restore_lr_tensors(self.optimizer, self._lr_tensors)


def _compiled(model: nn.Module) -> CompiledClassifier:
    if not isinstance(model, GapClassifier):
        raise InputError(
            f"compile=True needs a GapClassifier, got {type(model).__name__}; leave it out, or "
            "call the network's own method compile() before."
        )
    return CompiledClassifier(model)
