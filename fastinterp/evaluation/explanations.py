"""Explanations before and after an attack: the maps of the true class and of a target class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from ..attacks import PGD
from ..attacks.checks import require_pixel_eps
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size
from ..interpreters import CAM, IntegratedGradients, Interpreter, logits_and_maps
from ..models.gap import GapClassifier, device_of
from ..ops.pgd_step import Norm
from .measuring import require_classes, require_measurable
from .pictures import Explanations


def explain(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 40,
    step_size: float | None = None,
    norm: Norm = "linf",
    targets: Tensor | None = None,
    interpreter: Interpreter | None = None,
    classes: Sequence[str] | None = None,
) -> Explanations:
    """Attack images towards a target class, and map the true and the target class at both ends.

    The attack is targeted PGD that starts at x. A notebook shows what is returned as a picture.

    Args:
        model: images in [0, 1] -> logits.
        images: x [N, C_in, H, W] in [0, 1].
        labels: true classes [N].
        eps, steps, norm: of the attack, eps in pixel units.
        step_size: of one step; None takes `default_step_size`.
        targets: [N]; by default the likeliest wrong class of each image.
        interpreter: by default CAM, and integrated gradients for a network that is no
            GapClassifier. Maps with a value for each channel are summed over channels.
        classes: names of the classes, for the picture; by default their numbers.

    Raises:
        InputError: shapes, pixels or labels do not fit, a target is the true class, or the
            interpreter has no map for a class.
    """
    y = require_measurable("explain", model, images, labels)
    require_pixel_eps("explain", norm, eps)
    device = device_of(model, images)
    x, y = images.to(device), y.to(device)
    interpreter = interpreter or _usual(model)
    with eval_mode(model):
        if targets is None:
            with torch.no_grad():
                targets = runner_up(model(x), y)
        targets = require_classes("explain", "targets", targets, x, model)
        if bool((targets == y).any()):
            raise InputError("explain: a target must be another class than the true one.")
        if step_size is None:
            step_size = default_step_size(norm, eps, steps)
        x_adv = PGD(model, eps, step_size, steps, norm, targeted=True)(x, targets)
        both = torch.stack([y, targets], dim=1)
        p, maps = _look(interpreter, x, both)
        p_adv, maps_adv = _look(interpreter, x_adv, both)
    return Explanations(
        images=x.cpu(),
        attacked=x_adv.cpu(),
        labels=y.cpu(),
        targets=targets.cpu(),
        probabilities=p.cpu(),
        probabilities_adv=p_adv.cpu(),
        maps=maps.cpu(),
        maps_adv=maps_adv.cpu(),
        eps=eps,
        norm=norm,
        classes=classes,
    )


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, C] and true classes [N] -> the likeliest wrong class [N]."""
    return logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)


def _usual(model: nn.Module) -> Interpreter:
    if isinstance(model, GapClassifier):
        return CAM(model)
    return IntegratedGradients(model, steps=50, chunk_size=64)


def _look(interpreter: Interpreter, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits, maps = logits_and_maps(interpreter, x, classes)
    if maps.shape[1] != classes.shape[1]:
        raise InputError(
            f"explain: {type(interpreter).__name__} has no map for a class; take another."
        )
    # Maps on the pixels [N, 2, C_in, H, W] are drawn as one plane.
    return logits.softmax(dim=1), maps.sum(dim=2) if maps.dim() == 5 else maps
