"""Accuracy under JPEG, Gabor, Snow, Fog and Elastic attacks (Table 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_known_name, require_one_of, require_positive
from ..attacks import JPEG, Elastic, Fog, Gabor, Snow
from ..attacks.checks import as_module
from ..attacks.modes import eval_mode
from ..attacks.step_size import warn_of_short_cells
from ..attacks.unforeseen import UnforeseenAttack
from ..attacks.unforeseen.jpeg import IMAGENET_EPS as JPEG_LARGE
from ..attacks.unforeseen.jpeg import PUBLISHED_EPS as JPEG_EPS
from ..attacks.unforeseen.jpeg import SMALL
from ..models.gap import device_of
from .accuracy import AccuracyRow, accuracy_row
from .measuring import (
    all_rows,
    in_batches,
    misclassified,
    progress_bar,
    require_cells,
    require_classes,
    require_measurable,
)

CORRUPTIONS: dict[str, Callable[..., UnforeseenAttack]] = {
    "jpeg-linf": partial(JPEG, norm="linf"),
    "jpeg-l2": partial(JPEG, norm="l2"),
    "jpeg-l1": partial(JPEG, norm="l1"),
    "gabor": Gabor,
    "snow": Snow,
    "fog": Fog,
    "elastic": Elastic,
}
"""Name on the command line -> attack."""

PUBLISHED_EPS: dict[str, float] = {
    **{f"jpeg-{norm}": eps for norm, eps in JPEG_EPS.items()},
    **{kind.__name__.lower(): kind.published_eps for kind in (Gabor, Snow, Fog, Elastic)},
}
"""Sizes for images of 28x28 and 32x32, in the units of each attack."""

LARGE_EPS: dict[str, float] = {f"jpeg-{norm}": eps for norm, eps in JPEG_LARGE.items()}
"""Sizes for images of 224x224; those of the other attacks are not known here."""


def published_eps(attack: str, images: Tensor) -> float:
    """The published size of an attack for images [N, C, H, W].

    Raises:
        InputError: no size for images as large as these is known.
    """
    sizes = LARGE_EPS if max(images.shape[2:]) > SMALL else PUBLISHED_EPS
    if attack not in sizes:
        raise InputError(
            f"The published eps of {attack} is for images of 28 or 32 pixels, got images of "
            f"{images.shape[2]}x{images.shape[3]}; give eps (--eps)."
        )
    return sizes[attack]


class CorruptionRow(AccuracyRow):
    """Accuracy after the attack; `targeted`: it led towards the given classes only."""

    targeted: bool


def corruption_sweep(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    attack: str,
    eps: Sequence[float] | float | None = None,
    steps: Sequence[int] | int = (200,),
    step_size: float | None = None,
    protocol: str = "paper",
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> list[CorruptionRow]:
    """Accuracy under one attack for each number of steps and each eps.

    Under the protocol "paper" (Table 5) the attack leads towards `targets` and its last iterate is
    judged: the image counts if it is still classified rightly. Under "best" an untargeted attack
    follows, any iterate of which may fool the model. The random numbers of an image depend only on
    the seed and on the image's position.

    Args:
        model: images in [0, 1] -> logits, a module or a function; it runs in eval mode and
            is left as it was.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch.
        labels, targets: true classes and target classes [N].
        attack: a key of `CORRUPTIONS`.
        eps: sizes in the attack's own units; None takes `published_eps`.
        steps: numbers of attack steps.
        step_size: of one step; None takes eps / sqrt(steps).
        protocol: "paper" or "best".
        batch_size: images attacked at a time; it changes memory and speed, not the result.
        seed: of the random starts and shapes.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: images, labels, targets or a setting do not fit.
    """
    model = as_module("corruption_sweep", model)
    labels = require_measurable("corruption_sweep", model, images, labels, batch_size)
    targets = require_classes("corruption_sweep", "targets", targets, images, model)
    make = CORRUPTIONS[require_known_name("attack", attack, CORRUPTIONS)]
    require_one_of("protocol", protocol, ("paper", "best"))
    cells = require_cells(published_eps(attack, images) if eps is None else eps, steps)
    tries = [(True, "last")] + [(False, "first_fooled")] * (protocol == "best")
    if step_size is not None:
        step_size = require_positive("step_size", step_size)
        warn_of_short_cells("corruption_sweep", [(e, step_size, count) for e, count in cells])
    rows = []
    total = len(cells) * len(tries) * len(images)
    with eval_mode(model), progress_bar(total, "img", progress) as bar:
        for radius, count in cells:
            bar.set_description(f"{attack}, eps {radius:.4g}")
            fooled = torch.zeros(len(images), dtype=torch.bool)
            for targeted, keep in tries:
                one = make(
                    model,
                    eps=radius,
                    steps=count,
                    step_size=step_size,
                    targeted=targeted,
                    keep=keep,
                )
                for part, (x, y, goal) in in_batches(
                    batch_size, device_of(model, images), images, labels, targets
                ):
                    x_adv = one(x, goal if targeted else y, _generator(seed, part.start))
                    fooled[part] |= misclassified(model, x_adv, y).cpu()
                    bar.update(len(x))
            fooled = all_rows(fooled)
            # Without a step size of the caller's own the attacks reach their boundary.
            row = accuracy_row(radius, count, fooled, math.inf if step_size is None else step_size)
            rows.append(CorruptionRow(**row, targeted=protocol == "paper"))
    return rows


def _generator(seed: int, first: int) -> torch.Generator:
    """The generator as it is when the attacks before image `first` have drawn a number for each."""
    generator = torch.Generator().manual_seed(seed)
    torch.randint(2**32, (first,), generator=generator)
    return generator
