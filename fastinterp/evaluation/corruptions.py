"""Accuracy under JPEG, Gabor, Snow, Fog and Elastic attacks (Table 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_count, require_counts, require_numbers
from ..attacks import JPEG, Elastic, Fog, Gabor, Snow
from ..attacks.checks import require_images, require_labels, require_range
from ..attacks.modes import eval_mode
from ..attacks.unforeseen import UnforeseenAttack
from ..attacks.unforeseen.jpeg import IMAGENET_EPS as JPEG_LARGE
from ..attacks.unforeseen.jpeg import PUBLISHED_EPS as JPEG_EPS
from ..attacks.unforeseen.jpeg import SMALL
from ..models.gap import GapClassifier, require_fit, require_gap
from .bar import progress_bar
from .protocols import PROTOCOLS
from .tries import predict

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
"""Sizes for images of 224x224, as far as they are known here."""


def published_eps(attack: str, images: Tensor) -> float:
    """The published size of an attack for images [N, C, H, W].

    Raises:
        InputError: the images are large, and the size for those is not known.
    """
    sizes = LARGE_EPS if max(images.shape[2:]) > SMALL else PUBLISHED_EPS
    if attack not in sizes:
        raise InputError(
            f"the published eps of {attack} is for images of 28 or 32 pixels, and these are of "
            f"{images.shape[2]}x{images.shape[3]}; give eps (--eps)."
        )
    return sizes[attack]


class CorruptionRow(TypedDict):
    """The share of n images that are classified rightly after the attack.

    `targeted` says whether the attack led towards given classes alone.
    """

    eps: float
    steps: int
    accuracy: float
    n: int
    targeted: bool


def corruption_sweep(
    model: GapClassifier,
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

    Under the protocol "paper" (Table 5) the attack leads towards `targets`, its last iterate is
    judged, and an image counts while its prediction is the true class. Under "best" the untargeted
    attack comes after it, any iterate of which may fool the model. What an image draws depends on
    the seed and on its place among the images alone.

    Args:
        model: images in [0, 1] -> logits; in eval mode here, and left as it was.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch.
        labels, targets: [N], the true classes and those to lead to.
        attack: a key of `CORRUPTIONS`.
        eps: sizes in the attack's own units; None takes the one of `published_eps`.
        steps: numbers of attack steps.
        step_size: of one step; None takes eps / sqrt(steps).
        protocol: "paper" or "best".
        batch_size: images attacked at a time; for memory and speed alone.
        seed: of the random starts and shapes.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: images, labels, targets or a setting do not fit.
    """
    labels, targets = _check(model, images, labels, targets, attack, protocol, batch_size)
    radii = [published_eps(attack, images)] if eps is None else require_numbers("eps", eps)
    counts = require_counts("steps", steps, 0)
    if not radii or not counts:
        raise InputError("at least one eps and one number of steps are needed.")
    cells = [(radius, count) for count in counts for radius in radii]
    tries = [(True, "last")] + [(False, "first_fooled")] * (protocol == "best")
    rows = []
    total = len(cells) * len(tries) * len(images)
    with eval_mode(model), progress_bar(total, "img", progress) as bar:
        for radius, count in cells:
            bar.set_description(f"{attack}, eps {radius:.4g}")
            right = torch.ones(len(images), dtype=torch.bool)
            for targeted, keep in tries:
                maker = CORRUPTIONS[attack]
                generator = torch.Generator().manual_seed(seed)
                settings = {"targeted": targeted, "keep": keep, "generator": generator}
                one = maker(model, eps=radius, steps=count, step_size=step_size, **settings)
                for first in range(0, len(images), batch_size):
                    part = slice(first, first + batch_size)
                    x, y, goal = (each[part].to(model.device) for each in (images, labels, targets))
                    x_adv = one(x, goal if targeted else y)
                    right[part] &= (predict(model, x_adv) == y).cpu()
                    bar.update(len(x))
            rows.append(
                CorruptionRow(
                    eps=radius,
                    steps=count,
                    accuracy=int(right.sum()) / len(right),
                    n=len(right),
                    targeted=protocol == "paper",
                )
            )
    return rows


def _check(
    model: GapClassifier,
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    attack: str,
    protocol: str,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Raise unless everything fits; return labels and targets as int64."""
    require_gap("corruption_sweep", model)
    if attack not in CORRUPTIONS:
        raise InputError(f"attack must be one of {', '.join(CORRUPTIONS)}, got {attack!r}.")
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    require_images("corruption_sweep", images, 0.0, 1.0)
    require_count("batch_size", batch_size)
    if len(images) == 0:
        raise InputError("corruption_sweep: there are no images to measure on.")
    labels = require_labels("corruption_sweep", "labels", labels, images)
    targets = require_labels("corruption_sweep", "targets", targets, images)
    for name, classes in (("labels", labels), ("targets", targets)):
        require_range("corruption_sweep", name, classes, model.num_classes)
    require_fit("corruption_sweep", model, images[:1].to(model.device), autocast=False)
    return labels, targets
