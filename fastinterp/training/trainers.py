"""The eight trainers: `Trainer` with a method filled in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch.optim import Optimizer

from ..attacks import MakeInterpreter
from ..attacks.outputs import Precision
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .methods import Inner, method
from .optimizer import MakeOptimizer
from .schedule import EpsSchedule
from .trainer import Trainer

Kind = TypeVar("Kind", bound=type[Trainer])
_OWN = ("self", "model", "gamma", "interpreter", "inner", "chosen", "__class__")
_ELSEWHERE = "Arguments as for `IntTrainer`."  # for who reads the source


def _shared(given: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments -> those that it hands on to `Trainer` as they are."""
    return {name: value for name, value in given.items() if name not in _OWN}


def _documented(kind: Kind) -> Kind:
    """Complete a docstring, whose "Args:" hold what is a trainer's own, by those of `IntTrainer`.

    So `help` tells everything, and a setting is described in one place.
    """
    if kind.__doc__ is None or IntTrainer.__doc__ is None:  # under -OO
        return kind
    about, _, own = inspect.cleandoc(kind.__doc__).replace(_ELSEWHERE, "").partition("Args:\n")
    shared = inspect.cleandoc(IntTrainer.__doc__).partition("Args:\n")[2]
    known = inspect.signature(kind).parameters
    entries = (_entries(shared) | _entries(own)).items()
    lines = "\n".join(text for names, text in entries if names[0] in known)
    raises = "Raises:\n    InputError: a setting is out of its range.\n"
    kind.__doc__ = f"{about.rstrip()}\n\nArgs:\n{lines}\n\n{raises}"
    return kind


def _entries(described: str) -> dict[tuple[str, ...], str]:
    """What stands under "Args:" -> names that are described together: the lines about them."""
    arguments = described.partition("\nRaises:")[0]
    found = re.findall(r"^    ((?:\w+(?:, )?)+):(.*(?:\n {8}.*)*)", arguments, flags=re.MULTILINE)
    return {tuple(names.split(", ")): f"    {names}:{text}" for names, text in found}


class _IntFamily(Trainer):
    """The signature of the trainers whose gamma is in the units of the authors' programs."""

    _name: ClassVar[str]

    def __init__(
        self,
        model: GapClassifier,
        eps: float = 0.3,
        gamma: float = 0.01,
        steps: int = 40,
        step_size: float | None = None,
        optimizer: Optimizer | MakeOptimizer | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        lr: float | None = None,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
        interpreter: MakeInterpreter | None = None,
        inner: Inner = "discrepancy",
        precision: Precision = "float32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        norm: Norm = "linf",
    ) -> None:
        super().__init__(
            model,
            method(self._name, gamma, inner=inner, interpreter=interpreter),
            **_shared(locals()),
        )


class IntTrainer(_IntFamily):
    """Interpretability-aware training, eq. (9): cross-entropy at x + gamma D.

    x' maximises D, the discrepancy of eq. (8) between the class activation maps at x and x'.

    The scale of gamma: the paper's 0.01 belongs to the units of the authors' programs, CAM without
    the 1/u of eq. (1) and D without the 1/2 of eq. (8), where u = h * w is the number of positions
    of the feature maps. IntTrainer(gamma=0.01) means that 0.01: the loss adds gamma * 2u * D with
    D as eqs. (1) and (8) define it (and as `fastinterp.ops.discrepancy` computes it), u being read
    from the features. It is averaged over the batch.

    Args:
        model: a GapClassifier; it is trained in place.
        eps: radius of the ball around x in which x' is sought, in pixel units.
        gamma: weight of the discrepancy, in the units of the authors' programs.
        steps, step_size: of the inner loop, projected gradient ascent. No step_size: 0.01 in linf,
            as in the paper, else 2.5 eps / steps.
        optimizer: an optimiser of the model's parameters, or a function that makes one of them;
            by default Adam with `lr`.
        eps_schedule: (start, end) lets eps be 0 up to step `start` and grow linearly to its
            full size at step `end`; or a function from the step to eps. None: constant.
        random_start: begin the inner loop at a point drawn uniformly from the ball.
        seed: decides the order of the images and the random starts.
        lr: Adam's learning rate, where `optimizer` is None; by default 1e-4.
        lr_milestones: steps after each of which the learning rate falls to a tenth.
        device: where to move the model; None leaves it.
        interpreter: whose maps D compares: None for CAM, by the fused op; else a function that
            makes an interpreter of the model, such as `interpreters.GradCAM` or
            `lambda model: IntegratedGradients(model, steps=10)`. The loss adds gamma * s * D: for
            GradCAM and GradCAM++ s = 2u as for CAM, for others s = 2. Maps of eq. (1) and
            integrated gradients both sum to the logit, so a term of similar size takes a gamma u
            times that of CAM. Gradient-based maps differentiate the network twice.
        inner: what x' maximises: "discrepancy", or "cross-entropy", the variant Int2 of the
            authors' programs. The outer loss is the same.
        precision: "float32" is exact, on a GPU too. "tf32" lets a GPU round what convolutions and
            matrix products multiply to TF32 (a CPU computes float32). "bf16" runs the inner loop's
            passes in bfloat16, where the hardware has units for it; x', its projection, the
            discrepancy and the outer loss stay float32.
        channels_last: lay images out in that memory format, and on a GPU the network too; None: on
            a CPU, where convolutions are the faster for it.
        compile: put the network's features through torch.compile.
        cuda_graphs: replay whole steps as CUDA graphs; None: on a GPU, where the step can be
            captured. Settings changed afterwards take effect, of the trainer and of the optimiser;
            attributes of modules, such as a Dropout's p, do not.
        norm: of the ball, "linf", "l2" or "l1"; the steps' meaning is that of `attacks.PGD`. Steps
            in l2 and l1 are not captured.

    Raises:
        InputError: a setting is out of its range.
    """

    _name = "int"


@_documented
class IntOneClassTrainer(_IntFamily):
    """Int with the discrepancy of the true class's map alone: cross-entropy at x + gamma D1.

    x' maximises D1. gamma is in the units of `IntTrainer`: the loss adds
    gamma * u * || L(x, t) - L(x', t) ||_1 with the maps of eq. (1).

    Arguments as for `IntTrainer`.
    """

    _name = "int-1-class"


@_documented
class IntAdvTrainer(_IntFamily):
    """Int with adversarial loss: cross-entropy at x' + gamma D, which x' maximises too.

    gamma is in the units of `IntTrainer`.

    Arguments as for `IntTrainer`.
    """

    _name = "int-adv"


@_documented
class NormalTrainer(Trainer):
    """Standard training: cross-entropy at x.

    Arguments as for `IntTrainer`.

    Args:
        seed: decides the order of the images.
        precision: "float32" is exact, on a GPU too; "tf32" lets a GPU round what convolutions and
            matrix products multiply to TF32. "bf16", which is for inner loops, is float32 here.
    """

    def __init__(
        self,
        model: GapClassifier,
        optimizer: Optimizer | MakeOptimizer | None = None,
        seed: int = 0,
        lr: float | None = None,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
        precision: Precision = "float32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
    ) -> None:
        super().__init__(model, method("normal"), **_shared(locals()))


@_documented
class AdvTrainer(Trainer):
    """Adversarial training (Madry et al., 2018): cross-entropy at the x' that maximises it.

    Arguments as for `IntTrainer`.
    """

    def __init__(
        self,
        model: GapClassifier,
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
        super().__init__(model, method("adv"), **_shared(locals()))


class _Baseline(Trainer):
    """The signature of the trainers of other authors that weigh a regulariser."""

    _name: ClassVar[str]

    def __init__(
        self,
        model: GapClassifier,
        eps: float = 0.3,
        gamma: float = 1.0,
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
        super().__init__(model, method(self._name, gamma), **_shared(locals()))


@_documented
class TRADESTrainer(_Baseline):
    """TRADES (Zhang et al., 2019): cross-entropy at x + gamma KL(f(x) || f(x')).

    x' maximises the divergence.

    Arguments as for `IntTrainer`.

    Args:
        gamma: weight of the divergence, 1/lambda in Zhang et al.; the paper takes 1.
    """

    _name = "trades"


@_documented
class IGNormTrainer(_Baseline):
    """IG-Norm (Chen et al., 2019): cross-entropy at x + gamma R, where x' maximises R.

    R is the l1 norm of the integrated gradients of the cross-entropy along x to x', in 5 steps,
    divided by the number of images in the batch as in the authors' programs (`attacks.IGNorm`).
    It differentiates the network twice and costs several times what Int does.

    Arguments as for `IntTrainer`.

    Args:
        gamma: weight of R; the paper takes 1.
    """

    _name = "ig-norm"


@_documented
class IGNormSumTrainer(_Baseline):
    """IG-Norm with adversarial loss: cross-entropy at x' + gamma R, which x' maximises too.

    R as in `IGNormTrainer`.

    Arguments as for `IntTrainer`.

    Args:
        gamma: weight of R; the paper takes 1.
    """

    _name = "ig-norm-sum"
