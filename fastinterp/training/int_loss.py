"""Int's loss as a module, for training loops of one's own."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_whole
from ..attacks import MakeInterpreter
from ..attacks.modes import convolutions_in
from ..attacks.outputs import Precision
from ..models.gap import GapClassifier, require_fit
from ..ops.pgd_step import Norm
from .methods import INT_FAMILY, Inner
from .methods import method as method_named
from .precision import require_precision, usable_precision
from .robust_loss import ball, require_gap, require_inner, require_known_labels, robust_loss
from .schedule import EpsSchedule, make_schedule
from .seeds import derive


class IntLoss(nn.Module):
    """The loss of interpretability-aware training, eq. (9), with the search for x' inside.

    `loss = IntLoss(eps=0.3)(model, x, y)`, then `loss.backward()` and a step of any optimiser:
    with the same seed that is a step of `IntTrainer`. The module counts its calls, which decide the
    random starts and the schedule of eps; the count travels in its `state_dict`.

    Args:
        gamma: weight of the discrepancy, in the units of `IntTrainer`.
        eps: radius of the ball around x in which x' is sought, in pixel units.
        steps, step_size: of the inner loop, projected gradient ascent. No step_size: 0.01 in linf,
            as in the paper, else 2.5 eps / steps.
        reduction: "weighted" (eq. 8) or "1-class", the discrepancy of the true class's map.
        method: "int", "int-1-class" or "int-adv" (the cross-entropy at x', which x' maximises too);
            None leaves the choice between the first two to `reduction`.
        inner, interpreter: as for `IntTrainer`.
        eps_schedule: as for `IntTrainer`, in calls.
        random_start: begin the inner loop at a point drawn uniformly from the ball.
        seed: decides the random starts.
        precision: as for `IntTrainer`; the backward pass from the loss is the caller's, and its
            convolutions are as torch's own switches say.
        norm: of the ball, "linf", "l2" or "l1".

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        gamma: float = 0.01,
        eps: float = 0.3,
        steps: int = 40,
        step_size: float | None = None,
        reduction: Literal["weighted", "1-class"] = "weighted",
        *,
        method: str | None = None,
        inner: Inner = "discrepancy",
        interpreter: MakeInterpreter | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        precision: Precision = "float32",
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        name = _method_name(method, reduction)
        self.method = method_named(name, gamma, inner=inner, interpreter=interpreter)
        self.eps, self.steps, self.step_size = require_inner(
            self.method, eps, steps, step_size, random_start, norm
        )
        self.norm: Norm = norm
        self.random_start, self.seed = random_start, require_whole("seed", seed)
        self.precision = require_precision(precision)
        self.eps_schedule = make_schedule(self.eps, eps_schedule)
        self.step = 0

    def forward(self, model: GapClassifier, x: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch, a scalar. The model is left in the mode that it is in.

        Nothing waits for a GPU: pixels are not range-checked here, nor labels that lie there.

        Args:
            model: the network that is trained.
            x: images [N, C_in, H, W] in [0, 1], on the model's device.
            y: true classes [N], there too.

        Raises:
            InputError: no GapClassifier, x is no batch of images that it takes, or labels that are
                no integers, not one for each image, or (on a CPU) not among the classes.
        """
        require_gap(model)
        y = require_known_labels("IntLoss", y, x, model.num_classes)
        require_fit("IntLoss", model, x)
        generator = torch.Generator(device=x.device)
        generator.manual_seed(derive(self.seed, "start", self.step))
        eps = self.eps if self.eps_schedule is None else self.eps_schedule(self.step)
        self.step += 1
        with convolutions_in(self.precision):
            return robust_loss(
                model,
                self.method,
                x,
                y,
                threat=ball(eps, self.step_size, self.norm),
                steps=self.steps,
                random_start=self.random_start,
                generator=generator,
                precision=usable_precision(self.precision, x.device),
            ).loss

    def extra_repr(self) -> str:
        return (
            f"method={self.method.name}, gamma={self.method.gamma:.4g}, eps={self.eps:.4g}, "
            f"steps={self.steps}, step_size={self.step_size:.4g}, norm={self.norm}"
        )

    def get_extra_state(self) -> dict[str, int]:
        return {"step": self.step}

    def set_extra_state(self, state: Any) -> None:
        self.step = int(state["step"])


def _method_name(method: str | None, reduction: str) -> str:
    names = {"weighted": "int", "1-class": "int-1-class"}
    if reduction not in names:
        raise InputError(f'reduction must be "weighted" or "1-class", got {reduction!r}.')
    if method is None:
        return names[reduction]
    if method not in INT_FAMILY:
        raise InputError(f"method must be one of {', '.join(INT_FAMILY)}, got {method!r}.")
    if reduction == "1-class" and method != "int-1-class":
        raise InputError(f'reduction="1-class" is that of "int-1-class", not of {method!r}.')
    return method
