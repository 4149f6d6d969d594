"""The eight trainers: `Trainer` with a method filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.optim import Optimizer

from ..attacks import MakeInterpreter
from ..attacks.outputs import Precision
from ..models.gap import GapClassifier
from ..ops.pgd_step import Norm
from .methods import Inner, method
from .schedule import EpsSchedule
from .trainer import MakeOptimizer, Trainer


class NormalTrainer(Trainer):
    """Standard training: cross-entropy at x.

    Args:
        model: a GapClassifier; it is trained in place.
        optimizer: an optimiser of the model's parameters, or a function that makes one of them;
            by default Adam with `lr`.
        seed: decides the order of the images.
        lr: Adam's learning rate, where `optimizer` is None.
        lr_milestones: steps after each of which the learning rate falls to a tenth.
        device: where to move the model; None leaves it.
        channels_last: lay images out in that memory format, and on a GPU the network too; None: on
            a CPU, where convolutions are the faster for it.
        compile: put the network's features through torch.compile.
        cuda_graphs: replay whole steps as CUDA graphs; None: on a GPU, where the step can be
            captured. Then the learning rate is a tensor: change it in place.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: GapClassifier,
        optimizer: Optimizer | MakeOptimizer | None = None,
        seed: int = 0,
        lr: float = 1e-4,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
    ) -> None:
        super().__init__(
            model,
            method("normal"),
            optimizer=optimizer,
            seed=seed,
            lr=lr,
            lr_milestones=lr_milestones,
            device=device,
            channels_last=channels_last,
            compile=compile,
            cuda_graphs=cuda_graphs,
        )


class AdvTrainer(Trainer):
    """Adversarial training (Madry et al., 2018): cross-entropy at the x' that maximises it.

    Args:
        model: a GapClassifier; it is trained in place.
        eps: radius of the ball around x in which x' is sought, in pixel units.
        steps, step_size: of the inner loop, projected gradient ascent.
        optimizer: an optimiser of the model's parameters, or a function that makes one of them;
            by default Adam with `lr`.
        eps_schedule: (start, end) lets eps be 0 up to step `start` and grow linearly to its
            full size at step `end`; or a function from the step to eps. None: constant.
        random_start: begin the inner loop at a point drawn uniformly from the ball.
        seed: decides the order of the images and the random starts.
        lr: Adam's learning rate, where `optimizer` is None.
        lr_milestones: steps after each of which the learning rate falls to a tenth.
        device: where to move the model; None leaves it.
        precision: "bf16" runs the inner loop's passes in bfloat16, where the hardware has units for
            it; x', its projection, the discrepancy and the outer loss stay float32.
        channels_last: lay images out in that memory format, and on a GPU the network too; None: on
            a CPU, where convolutions are the faster for it.
        compile: put the network's features through torch.compile.
        cuda_graphs: replay whole steps as CUDA graphs; None: on a GPU, where the step can be
            captured. Then the learning rate is a tensor: change it in place.
        norm: of the ball, "linf", "l2" or "l1"; the steps' meaning is that of `attacks.PGD`. Steps
            in l2 and l1 are not captured.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: GapClassifier,
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
        precision: Precision = "float32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        norm: Norm = "linf",
    ) -> None:
        super().__init__(
            model,
            method("adv"),
            eps=eps,
            steps=steps,
            step_size=step_size,
            optimizer=optimizer,
            eps_schedule=eps_schedule,
            random_start=random_start,
            seed=seed,
            lr=lr,
            lr_milestones=lr_milestones,
            device=device,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
            cuda_graphs=cuda_graphs,
            norm=norm,
        )


class _IntFamily(Trainer):
    """The signature of the trainers whose gamma is in the units of the authors' programs."""

    _name: ClassVar[str]

    def __init__(
        self,
        model: GapClassifier,
        eps: float = 0.3,
        gamma: float = 0.01,
        steps: int = 40,
        step_size: float = 0.01,
        optimizer: Optimizer | MakeOptimizer | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        lr: float = 1e-4,
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
            eps=eps,
            steps=steps,
            step_size=step_size,
            optimizer=optimizer,
            eps_schedule=eps_schedule,
            random_start=random_start,
            seed=seed,
            lr=lr,
            lr_milestones=lr_milestones,
            device=device,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
            cuda_graphs=cuda_graphs,
            norm=norm,
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
        gamma: weight of the discrepancy, in the units above.
        steps, step_size: of the inner loop, projected gradient ascent.
        optimizer: an optimiser of the model's parameters, or a function that makes one of them;
            by default Adam with `lr`.
        eps_schedule: (start, end) lets eps be 0 up to step `start` and grow linearly to its
            full size at step `end`; or a function from the step to eps. None: constant.
        random_start: begin the inner loop at a point drawn uniformly from the ball.
        seed: decides the order of the images and the random starts.
        lr: Adam's learning rate, where `optimizer` is None.
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
        precision: "bf16" runs the inner loop's passes in bfloat16, where the hardware has units for
            it; x', its projection, the discrepancy and the outer loss stay float32.
        channels_last: lay images out in that memory format, and on a GPU the network too; None: on
            a CPU, where convolutions are the faster for it.
        compile: put the network's features through torch.compile.
        cuda_graphs: replay whole steps as CUDA graphs; None: on a GPU, where the step can be
            captured. Then the learning rate is a tensor: change it in place.
        norm: of the ball, "linf", "l2" or "l1"; the steps' meaning is that of `attacks.PGD`. Steps
            in l2 and l1 are not captured.

    Raises:
        InputError: a setting is out of its range.
    """

    _name = "int"


class IntOneClassTrainer(_IntFamily):
    """Int with the discrepancy of the true class's map alone: cross-entropy at x + gamma D1.

    x' maximises D1. gamma is in the units of `IntTrainer`: the loss adds
    gamma * u * || L(x, t) - L(x', t) ||_1 with the maps of eq. (1). Arguments as there.
    """

    _name = "int-1-class"


class IntAdvTrainer(_IntFamily):
    """Int with adversarial loss: cross-entropy at x' + gamma D, which x' maximises too.

    gamma is in the units of `IntTrainer`. Arguments as there.
    """

    _name = "int-adv"


class _Baseline(Trainer):
    """The signature of the trainers of other authors that weigh a regulariser."""

    _name: ClassVar[str]

    def __init__(
        self,
        model: GapClassifier,
        eps: float = 0.3,
        gamma: float = 1.0,
        steps: int = 40,
        step_size: float = 0.01,
        optimizer: Optimizer | MakeOptimizer | None = None,
        eps_schedule: EpsSchedule | tuple[int, int] | None = None,
        random_start: bool = True,
        seed: int = 0,
        lr: float = 1e-4,
        lr_milestones: Sequence[int] = (),
        device: torch.device | str | None = None,
        precision: Precision = "float32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        norm: Norm = "linf",
    ) -> None:
        super().__init__(
            model,
            method(self._name, gamma),
            eps=eps,
            steps=steps,
            step_size=step_size,
            optimizer=optimizer,
            eps_schedule=eps_schedule,
            random_start=random_start,
            seed=seed,
            lr=lr,
            lr_milestones=lr_milestones,
            device=device,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
            cuda_graphs=cuda_graphs,
            norm=norm,
        )


class TRADESTrainer(_Baseline):
    """TRADES (Zhang et al., 2019): cross-entropy at x + gamma KL(f(x) || f(x')).

    x' maximises the divergence.

    Args:
        model: a GapClassifier; it is trained in place.
        eps: radius of the ball around x in which x' is sought, in pixel units.
        gamma: weight of the divergence, 1/lambda in Zhang et al.; the paper takes 1.
        steps, step_size: of the inner loop, projected gradient ascent.
        optimizer: an optimiser of the model's parameters, or a function that makes one of them;
            by default Adam with `lr`.
        eps_schedule: (start, end) lets eps be 0 up to step `start` and grow linearly to its
            full size at step `end`; or a function from the step to eps. None: constant.
        random_start: begin the inner loop at a point drawn uniformly from the ball.
        seed: decides the order of the images and the random starts.
        lr: Adam's learning rate, where `optimizer` is None.
        lr_milestones: steps after each of which the learning rate falls to a tenth.
        device: where to move the model; None leaves it.
        precision: "bf16" runs the inner loop's passes in bfloat16, where the hardware has units for
            it; x', its projection, the discrepancy and the outer loss stay float32.
        channels_last: lay images out in that memory format, and on a GPU the network too; None: on
            a CPU, where convolutions are the faster for it.
        compile: put the network's features through torch.compile.
        cuda_graphs: replay whole steps as CUDA graphs; None: on a GPU, where the step can be
            captured. Then the learning rate is a tensor: change it in place.
        norm: of the ball, "linf", "l2" or "l1"; the steps' meaning is that of `attacks.PGD`. Steps
            in l2 and l1 are not captured.

    Raises:
        InputError: a setting is out of its range.
    """

    _name = "trades"


class IGNormTrainer(_Baseline):
    """IG-Norm (Chen et al., 2019): cross-entropy at x + gamma R, where x' maximises R.

    R is the l1 norm of the integrated gradients of the cross-entropy along x to x', in 5 steps,
    divided by the number of images in the batch as in the authors' programs (`attacks.IGNorm`).
    It differentiates the network twice and costs several times what Int does. gamma weighs R; the
    paper takes 1. Other arguments as `TRADESTrainer`.
    """

    _name = "ig-norm"


class IGNormSumTrainer(_Baseline):
    """IG-Norm with adversarial loss: cross-entropy at x' + gamma R, which x' maximises too.

    R and gamma as in `IGNormTrainer`. Other arguments as `TRADESTrainer`.
    """

    _name = "ig-norm-sum"
