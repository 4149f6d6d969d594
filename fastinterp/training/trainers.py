"""The eight trainers: `Trainer` with a method filled in.

All take the settings of `TrainConfig` as keywords, `NormalTrainer` only those that are not of the
inner loop, and train the model in place. An unknown setting or one out of its range raises
`InputError`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from .._utils.keywords import reject_unknown
from ..attacks import MakeInterpreter
from .config import TrainConfig
from .methods import Inner, method
from .optimizer import MakeOptimizer
from .trainer import Trainer

INNER_LOOP = ("eps", "steps", "step_size", "norm", "random_start", "eps_schedule")
OUTER = [name for name in TrainConfig.__dataclass_fields__ if name not in INNER_LOOP]


class NormalTrainer(Trainer):
    """Standard training: cross-entropy at x. Settings: `TrainConfig`, without the inner loop's."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | MakeOptimizer | None = None,
        **settings: Any,
    ) -> None:
        reject_unknown(type(self).__name__, settings, OUTER)
        super().__init__(model, "normal", self._config(optimizer=optimizer, **settings))


class AdvTrainer(Trainer):
    """Adversarial training (Madry et al., 2018): cross-entropy at the x' that maximises it.

    Settings: `TrainConfig`.
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 0.3,
        steps: int = 40,
        step_size: float | None = None,
        **settings: Any,
    ) -> None:
        config = self._config(eps=eps, steps=steps, step_size=step_size, **settings)
        super().__init__(model, "adv", config)


class TRADESTrainer(Trainer):
    """TRADES (Zhang et al., 2019): cross-entropy at x + gamma KL(f(x) || f(x')).

    x' maximises the divergence. gamma is 1/lambda in Zhang et al.; the paper uses 1. Other
    settings: `TrainConfig`.
    """

    _method: ClassVar[str] = "trades"

    def __init__(
        self,
        model: nn.Module,
        eps: float = 0.3,
        gamma: float = 1.0,
        steps: int = 40,
        step_size: float | None = None,
        **settings: Any,
    ) -> None:
        config = self._config(eps=eps, steps=steps, step_size=step_size, **settings)
        super().__init__(model, method(self._method, gamma), config)


class IGNormTrainer(TRADESTrainer):
    """IG-Norm (Chen et al., 2019): cross-entropy at x + gamma R, where x' maximises R.

    R is the l1 norm of the integrated gradients of the cross-entropy along x to x', in 5 steps,
    divided by the number of images in the batch as in the authors' programs (`attacks.IGNorm`).
    It differentiates the network twice and costs several times as much as Int. The paper uses
    gamma = 1. Other settings: `TrainConfig`.
    """

    _method = "ig-norm"


class IGNormSumTrainer(TRADESTrainer):
    """IG-Norm with adversarial loss: cross-entropy at x' + gamma R, which x' maximises too.

    R and the settings are those of `IGNormTrainer`.
    """

    _method = "ig-norm-sum"


class IntTrainer(Trainer):
    """Interpretability-aware training, eq. (9): cross-entropy at x + gamma D.

    x' maximises D, the discrepancy of eq. (8) between the class activation maps at x and x'.

    The scale of gamma: the paper's 0.01 belongs to the units of the authors' programs, CAM without
    the 1/u of eq. (1) and D without the 1/2 of eq. (8), where u = h * w is the number of positions
    of the feature maps. IntTrainer(gamma=0.01) means that 0.01: the loss adds gamma * 2u * D with
    D as eqs. (1) and (8) define it (and as `fastinterp.ops.discrepancy` computes it); u is read
    from the features. The loss is averaged over the batch.

    Args:
        model: a GapClassifier; it is trained in place. Any other network needs an interpreter that
            explains it, such as IntegratedGradients.
        gamma: weight of the discrepancy, in the units of the authors' programs.
        interpreter: whose maps D compares. None is CAM, by the fused op. Otherwise a function that
            makes an interpreter from the model, such as `interpreters.GradCAM` or
            `lambda model: IntegratedGradients(model, steps=10)`. The loss adds gamma * s * D, with
            s = 2u for GradCAM and GradCAM++, as for CAM, and s = 2 for others. Maps of eq. (1) and
            integrated gradients both sum to the logit, so a term of similar size needs a gamma u
            times that of CAM. Gradient-based maps differentiate the network twice.
        inner: what x' maximises: "discrepancy", or "cross-entropy", the variant Int2 of the
            authors' programs. The outer loss is the same.
        eps, steps, step_size, settings: see `TrainConfig`.
    """

    _method: ClassVar[str] = "int"

    def __init__(
        self,
        model: nn.Module,
        eps: float = 0.3,
        gamma: float = 0.01,
        steps: int = 40,
        step_size: float | None = None,
        *,
        interpreter: MakeInterpreter | None = None,
        inner: Inner = "discrepancy",
        **settings: Any,
    ) -> None:
        config = self._config(eps=eps, steps=steps, step_size=step_size, **settings)
        chosen = method(self._method, gamma, inner=inner, interpreter=interpreter)
        super().__init__(model, chosen, config)


class IntOneClassTrainer(IntTrainer):
    """Int with the discrepancy of the true class's map alone: cross-entropy at x + gamma D1.

    x' maximises D1. The loss adds gamma * u * || L(x, t) - L(x', t) ||_1 with the maps of eq. (1).
    The settings are those of `IntTrainer`.
    """

    _method = "int-1-class"


class IntAdvTrainer(IntTrainer):
    """Int with adversarial loss: cross-entropy at x' + gamma D, which x' maximises too.

    The settings are those of `IntTrainer`.
    """

    _method = "int-adv"
