"""The same attack by four libraries: projected gradient descent in the linf ball, started at x."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.group import Skipped, said
from fastinterp import PGD

Attack = Callable[[Tensor, Tensor], Tensor]  # x, y -> x'
MakeAttack = Callable[[nn.Module, float, float, int], Attack]  # model, eps, step size, steps


def ours(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    return PGD(model, eps, step_size, steps)


def ours_leaving(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    """An image leaves the batch once it is fooled."""
    return PGD(model, eps, step_size, steps, keep="first_fooled")


def torchattacks(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    import torchattacks

    return torchattacks.PGD(model, eps, step_size, steps, random_start=False)


def foolbox(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    import foolbox

    device = next(model.parameters()).device  # else foolbox moves the model to any GPU there is
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=step_size, steps=steps, random_start=False
    )
    return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]  # type: ignore[no-any-return]


def art(model: Any, eps: float, step_size: float, steps: int) -> Attack:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

    def attack(x: Tensor, y: Tensor) -> Tensor:
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=model.weight.shape[0],
            clip_values=(0.0, 1.0),
            device_type="cpu" if x.device.type == "cpu" else "gpu",
        )
        pgd = ProjectedGradientDescent(
            wrapped, eps=eps, eps_step=step_size, max_iter=steps, batch_size=len(x), verbose=False
        )
        return torch.from_numpy(pgd.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return attack


def network_alone(model: nn.Module, eps: float, step_size: float, steps: int) -> Attack:
    """The floor: as many passes forward and backward to the image, and nothing else."""

    def passes(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        logits = model(x)
        above = torch.ones_like(logits)
        for _ in range(steps):
            torch.autograd.grad(model(x), x, above)
        return x.detach()

    return passes


def attempt(make: MakeAttack, *settings: Any) -> Attack | Skipped:
    """The attack, or why it is not there."""
    try:
        return make(*settings)
    except Exception as error:  # not installed, or broken by a newer version of something else
        return missing(error)


def missing(error: Exception) -> Skipped:
    why = str(error) if isinstance(error, ImportError) else said(error)
    return Skipped(f"{why}; the extra 'bench' holds the peers")


@torch.no_grad()
def verdicts(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Which images keep their class, bool [N]."""
    right: Tensor = model(x_adv).argmax(dim=1) == y
    return right


def accuracies(
    attack_at: Callable[[float], Attack], radii: Sequence[float], x: Tensor, y: Tensor,
    model: nn.Module,
) -> list[float]:  # fmt: skip
    """Accuracy at each radius, one attack after another, as a loop around any library does it."""
    return [float(verdicts(model, attack_at(eps)(x, y), y).float().mean()) for eps in radii]
