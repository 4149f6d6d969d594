"""How large a discrepancy ISA leaves: the scores NDS and NSL of appendix D (Table 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, compress
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_numbers, require_one_of
from ..attacks import ISA
from ..attacks.modes import eval_mode
from ..data import ImageData, ImageStream
from ..interpreters.distance import ClassSet, interpretability_discrepancy
from ..interpreters.registry import interpreter_named
from ..models.gap import device_of
from .best_isa import lowest_discrepancy
from .measuring import all_batches, in_batches, progress_bar, require_classes, require_measurable
from .protocols import ISA_SEED, paper_batch

PAPER_PENALTIES = (1.0, 1.2, 1.4, 1.6)

TABLE1 = ("cam", "gradcam++", "ig", "repr")
"""The interpreters of Table 1."""


class Curve(NamedTuple):
    """The discrepancy that P attacks of growing radius leave on N images."""

    discrepancy: Tensor
    """[P, N], normalised, of attack p on image n."""
    eps: Tensor
    """[P, N], max |x' - x|, growing with p."""
    usable: Tensor
    """bool [P, N], whether the attack makes the model prefer the target to the true class, which
    it does not at x."""


class ISAScore(NamedTuple):
    """Means over images, as Table 1 prints them."""

    nds: float
    """Normalised discrepancy score, the mean over images and attacks."""
    nsl: float
    """Normalised slope as the paper prints it: the sum of the images' slopes over the number of
    images times attacks, because the paper's program divided by that."""
    slope: float
    """The mean of the images' slopes, as appendix D defines it."""
    n: int
    """Images that count: some attack is usable, and a larger radius lowers the discrepancy."""
    points: int
    """Usable attacks on those images."""


class ISARow(TypedDict):
    """A cell of Table 1: `n` of `n_images` images count, see `ISAScore`.

    For l2, `nds_squared` and `nsl_squared` are the scores of the squared discrepancy. With the
    released networks the paper's 1-class l2 cells of CAM and GradCAM++ agree with these and not
    with those of the norm, on both data sets; its other cells agree with the norm.
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
    model: nn.Module,
    data: ImageData | ImageStream,
    interpreter: str = "cam",
    norm: Literal["l1", "l2"] = "l1",
    classes: ClassSet = "2-class",
    *,
    n: int = 100,
    penalties: Sequence[float] = PAPER_PENALTIES,
    seed: int = ISA_SEED,
    protocol: Literal["paper", "best"] = "paper",
    batch_size: int = 100,
    progress: bool = True,
) -> ISARow:
    """A cell of Table 1.

    The paper does not say how many images and which radii its table is measured with.

    Args:
        model: images in [0, 1] -> logits.
        data: the test set, in its official order.
        interpreter: its name, see `fastinterp.interpreters.registry`. "repr" has no classes: its
            discrepancy is the mean over channels for all `classes`. The paper prints it under
            2-class.
        norm, classes: of the discrepancy.
        n: number of images, chosen by `paper_selection`.
        penalties: radii divided by the smallest successful one, rising.
        seed: of the selection and of the targets.
        protocol: see `isa_curve`.
        batch_size: images attacked at a time; it changes memory and speed, not the result.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: an unknown interpreter, or a setting that does not fit.
    """
    explained = interpreter_named(interpreter)(model)
    found = isa_curve(
        ISA(model, explained, norm, classes),
        *paper_batch(data, n, seed),
        penalties=penalties,
        protocol=protocol,
        batch_size=batch_size,
        progress=progress,
    )
    result = score(found)
    squared = None
    if norm == "l2":
        squared = score(found._replace(discrepancy=found.discrepancy**2))
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
    protocol: Literal["paper", "best"] = "paper",
    batch_size: int = 100,
    progress: bool = True,
) -> Curve:
    """Attack images with growing radii and measure the discrepancy that each attack leaves.

    The first attack is the smallest successful one, which does not hold the maps. The others are
    ISA in a ball that is each penalty times as large.

    Args:
        attack: the interpreter, norm and classes. Its own penalty is not used.
        images: x [N, C_in, H, W] in [0, 1]; moved to the model batch by batch.
        labels, targets: [N].
        penalties: at least 1, rising.
        protocol: "paper" is the above. "best" attacks the same balls several times more, lowers
            the discrepancy itself, and keeps for each image and ball the x' with the lowest
            discrepancy among those that are classified as the target; those of smaller balls
            count. `Curve.eps` is then the radius of the ball.
        batch_size, progress: as for `isa_row`.

    Raises:
        InputError: images, labels, targets or a setting do not fit.
    """
    model = attack.interpreter.model
    labels = require_measurable("isa_curve", model, images, labels, batch_size)
    targets = require_classes("isa_curve", "targets", targets, images, model)
    require_one_of("protocol", protocol, ("paper", "best"))
    factors = require_numbers("penalties", penalties)
    if not factors or factors != sorted(factors) or not factors[0] >= 1:
        raise InputError(f"penalties must be at least 1 and rise, got {factors}.")
    parts = []
    attacks = -(-len(images) // batch_size) * (1 + len(factors))
    with eval_mode(model), progress_bar(attacks, "attack", progress) as bar:
        for _, (x, y, goal) in in_batches(
            batch_size, device_of(model, images), images, labels, targets
        ):
            smallest = attack.smallest(x, goal)
            bar.update()
            attacked = [smallest.x_adv]
            for factor in factors:
                x_adv = attack(x, y, goal, eps=factor * smallest.eps).x_adv
                if protocol == "best":
                    known = [x_adv, *attacked]
                    x_adv = _lowest(attack, x, y, goal, factor * smallest.eps, known)
                attacked.append(x_adv)
                bar.update()
            curve = _measure(attack, x, y, goal, attacked, smallest.success)
            if protocol == "best":
                balls = [factor * smallest.eps for factor in (1.0, *factors)]
                curve = curve._replace(eps=torch.stack(balls).cpu())
            parts.append(curve)
    return Curve(*(torch.cat(each, dim=1) for each in zip(*all_batches(parts), strict=True)))


def _lowest(
    attack: ISA, x: Tensor, y: Tensor, targets: Tensor, eps: Tensor, known: list[Tensor]
) -> Tensor:
    """`lowest_discrepancy` of the images that some finite radius above 0 fools; else known[0]."""
    rows = ((eps > 0) & eps.isfinite()).nonzero().squeeze(1)
    found = known[0].clone()
    if len(rows):
        parts = [each[rows] for each in known]
        found[rows] = lowest_discrepancy(attack, x[rows], y[rows], targets[rows], eps[rows], parts)
    return found


@torch.no_grad()
def _measure(
    attack: ISA, x: Tensor, y: Tensor, targets: Tensor, attacked: Sequence[Tensor], found: Tensor
) -> Curve:
    """The curve of one batch; `found` [N]: whether a radius was found that fools the model."""
    both = torch.stack([y, targets], dim=1)

    def prefers_target(images: Tensor) -> Tensor:
        true, target = attack.interpreter.model(images).gather(1, both).unbind(1)
        preferred: Tensor = target > true
        return preferred

    moved = torch.stack(
        [
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
    )
    fair = found & ~prefers_target(x)
    usable = torch.stack([prefers_target(x_adv) & fair for x_adv in attacked])
    radii = torch.stack([(x_adv - x).abs().flatten(1).amax(dim=1) for x_adv in attacked])
    # The discrepancy is normalised by the clean map's range, which is 0 for a constant map.
    return Curve(moved.cpu(), radii.cpu(), (usable & moved.isfinite()).cpu())


def score(curve: Curve) -> ISAScore:
    """NDS and NSL of appendix D.

    A discrepancy that grows with the radius is replaced by that of the attack before, whose x' lies
    in the larger ball too. The slope of an image is
    ((D_first - D_last) / D_first) / ((eps_last - eps_first) / eps_first). Images whose discrepancy
    never falls are left out of both means, as in the paper's program.
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
