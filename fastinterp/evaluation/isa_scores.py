"""How hard it is to sneak past a discrepancy: NDS and NSL of appendix D (Table 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, compress
from typing import Literal, TypedDict

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_whole
from ..attacks import ISA
from ..attacks.checks import require_images
from ..attacks.modes import eval_mode
from ..data import ImageData
from ..interpreters.distance import ClassSet, interpretability_discrepancy
from ..interpreters.registry import interpreter_named
from ..models.gap import GapClassifier
from .bar import progress_bar
from .protocols import ISA_SEED, paper_selection

PAPER_PENALTIES = (1.0, 1.2, 1.4, 1.6)

TABLE1 = ("cam", "gradcam++", "ig", "repr")
"""The interpreters of Table 1."""


@dataclass(frozen=True)
class Curve:
    """What sneaking costs each image as the radius grows: P attacks on N images.

    Attributes:
        discrepancy: [P, N], normalised, of attack p on image n.
        eps: [P, N], max |x' - x|, growing with p.
        usable: bool [P, N], whether the attack prefers the target to the true class, where the
            model does not do so at x.
    """

    discrepancy: Tensor
    eps: Tensor
    usable: Tensor


@dataclass(frozen=True)
class ISAScore:
    """Means over images, as Table 1 prints them.

    Attributes:
        nds: normalised discrepancy score, the mean over images and attacks.
        nsl: normalised slope as printed: the sum of the images' slopes over the number of images
            times attacks, for that is what the paper's program divided by.
        slope: the mean of the images' slopes, as appendix D defines it.
        n: images that count: some attack is usable, and a larger radius lowers the discrepancy.
        points: usable attacks on those images.
    """

    nds: float
    nsl: float
    slope: float
    n: int
    points: int


class ISARow(TypedDict):
    """A cell of Table 1: `n` of `n_images` images count, see `ISAScore`.

    For l2, `nds_squared` and `nsl_squared` are the scores of the squared discrepancy: with the
    released networks the paper's 1-class l2 cells of CAM and GradCAM++ agree with these and not
    with the norm, on both data sets; its other cells agree with the norm.
    """

    dataset: str
    interpreter: str
    norm: str
    classes: str
    nds: float
    nsl: float
    slope: float
    nds_squared: float | None
    nsl_squared: float | None
    n: int
    n_images: int


def isa_row(
    model: GapClassifier,
    data: ImageData,
    interpreter: str = "cam",
    norm: Literal["l1", "l2"] = "l1",
    classes: ClassSet = "2-class",
    *,
    n: int = 100,
    penalties: Sequence[float] = PAPER_PENALTIES,
    seed: int = ISA_SEED,
    batch_size: int = 100,
    progress: bool = True,
) -> ISARow:
    """A cell of Table 1.

    How many images and which radii stand behind the paper's table is not known.

    Args:
        model: images in [0, 1] -> logits.
        data: the test set, in its official order.
        interpreter: its name, see `fastinterp.interpreters.registry`. "repr" knows no classes:
            whichever are asked for, its discrepancy is the mean over channels, and the paper prints
            it under 2-class.
        norm, classes: of the discrepancy.
        n: images, chosen by `paper_selection`.
        penalties: radii over the smallest successful one, rising.
        seed: of the selection and of the targets.
        batch_size: images attacked at a time; for memory and speed alone.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: an unknown interpreter, or a setting that does not fit.
    """
    make = interpreter_named(interpreter)
    chosen, offsets = paper_selection(len(data), n, seed, data.num_classes)
    labels = data.labels[chosen.to(data.device)]
    targets = (labels + offsets.to(data.device)) % data.num_classes
    found = isa_curve(
        ISA(model, make(model), norm, classes),
        data.float(chosen),
        labels,
        targets,
        penalties=penalties,
        batch_size=batch_size,
        progress=progress,
    )
    result = score(found)
    squared = score(replace(found, discrepancy=found.discrepancy**2)) if norm == "l2" else None
    return ISARow(
        dataset=data.name,
        interpreter=interpreter,
        norm=norm,
        classes=classes,
        nds=result.nds,
        nsl=result.nsl,
        slope=result.slope,
        nds_squared=None if squared is None else squared.nds,
        nsl_squared=None if squared is None else squared.nsl,
        n=result.n,
        n_images=n,
    )


def isa_curve(
    attack: ISA,
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    penalties: Sequence[float] = PAPER_PENALTIES,
    batch_size: int = 100,
    progress: bool = True,
) -> Curve:
    """Attack images with growing radii and measure the discrepancy that each attack leaves.

    The first attack is the smallest successful one, which hides nothing; the others sneak, in the
    ball that is each penalty times as large.

    Args:
        attack: the interpreter, norm and classes. Its own penalty is not used.
        images: x [N, C_in, H, W] in [0, 1]; moved to the model batch by batch.
        labels, targets: [N].
        penalties: at least 1, rising.
        batch_size, progress: as for `isa_row`.

    Raises:
        InputError: images, labels, targets or a setting do not fit.
    """
    require_images("isa_curve", images, 0.0, 1.0)
    if not penalties or list(penalties) != sorted(penalties) or not penalties[0] >= 1:
        raise InputError(f"penalties must be at least 1 and rise, got {list(penalties)}.")
    if require_whole("batch_size", batch_size) < 1 or len(images) == 0:
        raise InputError("isa_curve: there must be at least one image, and one in a batch.")
    model = attack.interpreter.model
    starts = range(0, len(images), batch_size)
    parts = []
    with (
        eval_mode(model),
        progress_bar(len(starts) * (1 + len(penalties)), "attack", progress) as bar,
    ):
        for first in starts:
            rows = slice(first, first + batch_size)
            x, y, goal = (each[rows].to(model.device) for each in (images, labels, targets))
            smallest = attack.smallest(x, goal)
            bar.update()
            attacked = [smallest.x_adv]
            for penalty in penalties:
                attacked.append(attack(x, y, goal, eps=penalty * smallest.eps).x_adv)
                bar.update()
            parts.append(_measure(attack, x, y, goal, attacked, smallest.success))
    return Curve(
        torch.cat([part.discrepancy for part in parts], dim=1),
        torch.cat([part.eps for part in parts], dim=1),
        torch.cat([part.usable for part in parts], dim=1),
    )


@torch.no_grad()
def _measure(
    attack: ISA,
    x: Tensor,
    y: Tensor,
    targets: Tensor,
    attacked: Sequence[Tensor],
    found: Tensor,
) -> Curve:
    """The curve of one batch; `found` [N]: whether a radius was found that fools the model."""
    both = torch.stack([y, targets], dim=1)

    def prefers_target(images: Tensor) -> Tensor:
        logits = attack.interpreter.model(images).gather(1, both)
        preferred: Tensor = logits[:, 1] > logits[:, 0]
        return preferred

    distances = [
        interpretability_discrepancy(
            attack.interpreter,
            x,
            x_adv,
            y,
            targets,
            classes=attack.classes,
            p=attack.p,
            normalized=True,
        )
        for x_adv in attacked
    ]
    moved = torch.stack(distances)
    fair = found & ~prefers_target(x)
    usable = torch.stack([prefers_target(x_adv) & fair for x_adv in attacked])
    radii = torch.stack([(x_adv - x).abs().flatten(1).amax(dim=1) for x_adv in attacked])
    # A constant clean map has no range to be divided by.
    return Curve(moved.cpu(), radii.cpu(), (usable & moved.isfinite()).cpu())


def score(curve: Curve) -> ISAScore:
    """NDS and NSL of appendix D.

    A discrepancy that grows with the radius is replaced by that of the attack before, which lies
    inside the larger ball as well. The slope of an image is
    ((D_first - D_last) / D_first) / ((eps_last - eps_first) / eps_first). Images whose discrepancy
    never falls have no part in either mean, as in the paper's program.
    """
    total = slopes = 0.0
    images = points = 0
    for values, radii, usable in zip(
        curve.discrepancy.T.tolist(), curve.eps.T.tolist(), curve.usable.T.tolist(), strict=True
    ):
        d = list(accumulate(compress(values, usable), min))
        eps = list(compress(radii, usable))
        if len(d) < 2 or d[0] == d[-1] or eps[0] == eps[-1]:
            continue
        total += sum(d)
        slopes += (d[0] - d[-1]) / d[0] * eps[0] / (eps[-1] - eps[0])
        points += len(d)
        images += 1
    if images == 0:
        return ISAScore(nds=math.nan, nsl=math.nan, slope=math.nan, n=0, points=0)
    return ISAScore(total / points, slopes / points, slopes / images, images, points)
