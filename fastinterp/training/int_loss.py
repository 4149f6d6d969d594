"""Int's loss as a module, for your own training loop."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.keywords import reject_unknown
from .._utils.require import require_one_of
from ..attacks import MakeInterpreter
from ..attacks.checks import count_classes
from ..attacks.modes import convolutions_in
from ..models.gap import GapClassifier, require_fit
from ..ops.discrepancy import Reduction
from .config import TrainConfig
from .methods import INT_FAMILY, Inner
from .methods import method as method_named
from .precision import usable_precision
from .robust_loss import ball, require_known_labels, require_trainable, robust_loss
from .seeds import derive

SETTINGS = ("eps_schedule", "random_start", "seed", "precision", "norm")  # of TrainConfig
OF_REDUCTION = {"weighted": "int", "1-class": "int-1-class"}


class IntLoss(nn.Module):
    """The loss of interpretability-aware training, eq. (9), including the search for x'.

    `loss = IntLoss(eps=0.3)(model, x, y)`, then `loss.backward()` and a step of any optimizer: with
    the same seed that is a step of `IntTrainer`. The module counts its calls, which determine the
    random starts and the schedule of eps; the count is part of its `state_dict`.

    Args:
        gamma, interpreter, inner: as for `IntTrainer`.
        reduction: "weighted" (eq. 8) or "1-class", the discrepancy of the true class's map.
        method: "int", "int-1-class" or "int-adv" (the cross-entropy at x', which x' maximises too);
            None takes one of the first two by `reduction`.
        eps, steps, step_size, norm, random_start, eps_schedule (in calls), seed, precision:
            settings of `TrainConfig`. The backward pass from the loss is yours, and torch's own
            switches determine the precision of its convolutions.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        gamma: float = 0.01,
        eps: float = 0.3,
        steps: int = 40,
        step_size: float | None = None,
        reduction: Reduction = "weighted",
        *,
        method: str | None = None,
        inner: Inner = "discrepancy",
        interpreter: MakeInterpreter | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        known = [name for name in signature(IntLoss).parameters if name != "settings"]
        reject_unknown("IntLoss", settings, [*known, *SETTINGS])
        require_one_of("reduction", reduction, list(OF_REDUCTION))
        name = OF_REDUCTION[reduction] if method is None else method
        require_one_of("method", name, INT_FAMILY)
        if reduction == "1-class" and name != "int-1-class":
            raise InputError(f'reduction="1-class" belongs to "int-1-class", not to {name!r}.')
        self.method = method_named(name, gamma, inner=inner, interpreter=interpreter)
        self.config = TrainConfig(
            eps=eps,
            steps=steps,
            step_size=step_size,  # type: ignore[arg-type]
            **settings,
        )
        self.config.check_method(self.method)
        self.step = 0
        self._classes: int | None = None  # of a network that does not say it

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch, a scalar. The model keeps its train or eval mode.

        Nothing waits for a GPU: the ranges of pixels and labels are checked on a CPU only.

        Args:
            model: the network that is trained; one that is no GapClassifier needs an interpreter
                for any network, such as IntegratedGradients.
            x: images [N, C_in, H, W] in [0, 1], on the model's device.
            y: true classes [N], on the same device.

        Raises:
            InputError: the model does not fit the interpreter; x is no batch that it takes; the
                labels are no integers, not one for each image, or (on a CPU) not among the classes;
                pixels are (on a CPU) outside [0, 1]; the batch is empty;
                another thread uses the network, whose layers depend on train and eval mode.
        """
        require_trainable(model, self.method)
        if isinstance(model, GapClassifier):
            y = require_known_labels("IntLoss", y, x, model.num_classes)
        require_fit("IntLoss", model, x)
        if len(x) == 0:
            raise InputError("IntLoss: the batch is empty, so it has no mean; leave it out.")
        if not isinstance(model, GapClassifier):
            self._classes = self._classes or count_classes("IntLoss", model, x, gradient=False)
            y = require_known_labels("IntLoss", y, x, self._classes)
        config = self.config
        generator = torch.Generator(device=x.device)
        generator.manual_seed(derive(config.seed, "start", self.step))
        threat = ball(config.eps_at(self.step), config.step_size, config.norm)
        self.step += 1
        with convolutions_in(config.precision):
            return robust_loss(
                model,
                self.method,
                config,
                x,
                y,
                threat=threat,
                generator=generator,
                precision=usable_precision(config.precision, x.device),
            ).loss

    def extra_repr(self) -> str:
        config = self.config
        return (
            f"method={self.method.name}, gamma={self.method.gamma:.4g}, eps={config.eps:.4g}, "
            f"steps={config.steps}, step_size={config.step_size:.4g}, norm={config.norm}"
        )

    def get_extra_state(self) -> dict[str, int]:
        return {"step": self.step}

    def set_extra_state(self, state: Any) -> None:
        self.step = int(state["step"])
