"""How well explanations hold under attack: maps before and after (Tables 2, A4 and A5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_nonnegative, require_numbers
from ..attacks import AAI
from ..attacks.aai import AAIKind
from ..attacks.ascent import Keep
from ..attacks.checks import require_pixel_eps
from ..attacks.modes import eval_mode
from ..attacks.step_size import default_step_size, falls_short, warn_of_short_cells
from ..attacks.threats import BALLS
from ..interpreters import Interpreter
from ..models.gap import device_of
from ..ops import kendall_tau
from ..ops.pgd_step import Norm
from .measuring import all_batches, in_batches, predict, progress_bar, require_measurable
from .protocols import PAPER_SEED
from .topk import topk_intersection

PAPER_K = 8


class AAIFigures(TypedDict):
    """Agreement of the true class's maps before and after the attack.

    `kendall_tau` and `topk_intersection` are means over those `n_unchanged` of `n` images whose
    prediction is the same before and after, right or wrong; NaN where there are none. The k of the
    intersection is the attack's.
    """

    eps: float
    steps: int
    kendall_tau: float
    topk_intersection: float
    n_unchanged: int
    n: int


class AAIRow(AAIFigures, total=False):
    """`AAIFigures`, and the mark of `AccuracyRow` where the attack cannot reach the boundary."""

    short_of_eps: bool


class AAIScores(NamedTuple):
    """One attacked batch, image by image."""

    kendall_tau: Tensor
    """[N], tau-b between the maps before and after, float64; NaN where one of them is constant."""
    topk_intersection: Tensor
    """[N], share of the k brightest positions that the maps before and after have in common."""
    unchanged: Tensor
    """bool [N], whether the prediction is the same before and after."""


def aai_sweep(
    model: nn.Module,
    interpreter: Interpreter,
    images: Tensor,
    labels: Tensor,
    *,
    eps: Sequence[float] | float,
    steps: int = 200,
    step_size: float | None = None,
    kind: AAIKind = "topk",
    k: int = PAPER_K,
    hinge: float = 0.0,
    keep: Keep = "last",
    norm: Norm = "linf",
    noise: Tensor | None = None,
    batch_size: int = 40,
    seed: int = 0,
    progress: bool = True,
) -> list[AAIRow]:
    """Agreement of maps under AAI for each eps (Tables 2, A4 and A5).

    The defaults are the tables' protocol, in which nothing holds the prediction, except for its
    random starts, which `paper_noise` gives. The model runs in eval mode and is left as it was.

    Args:
        model: images in [0, 1] -> logits.
        interpreter: explains the same model.
        images: x [N, C_in, H, W], floating point in [0, 1]; moved to the model batch by batch.
        labels: true classes [N].
        eps: radii (or one) of the ball around x, in pixel units.
        steps, kind, k, hinge, keep, norm: of the attack, see `fastinterp.attacks.AAI`.
        step_size: of one step; None takes `default_step_size`.
        noise: [N, C_in, H, W] in [-1, 1]; the attack starts at x + eps * noise, clipped to [0, 1].
            Only for linf. Without it the starts are drawn uniformly from the ball.
        batch_size: images attacked at a time; it changes memory and speed, not the result.
        seed: of the starts without `noise`.
        progress: show a bar where standard error is a terminal.

    Returns:
        One row for each eps, in the order given.

    Raises:
        InputError: images, labels, noise or a setting do not fit.
    """
    labels = require_measurable("aai_sweep", model, images, labels, batch_size)
    radii = [require_nonnegative("eps", radius) for radius in require_numbers("eps", eps)]
    steps = require_count("steps", steps, 0)
    require_noise("aai_sweep", noise, images, norm)
    for radius in radii:
        require_pixel_eps("aai_sweep", norm, radius)
    sizes = [default_step_size(norm, e, steps) if step_size is None else step_size for e in radii]
    warn_of_short_cells("aai_sweep", [(*each, steps) for each in zip(radii, sizes, strict=True)])
    rows = []
    with eval_mode(model), progress_bar(len(radii) * len(images), "img", progress) as bar:
        for radius, size in zip(radii, sizes, strict=True):
            bar.set_description(f"eps {radius:.4g}")
            attack = AAI(
                model, interpreter, radius, size, steps, kind, k, hinge=hinge, norm=norm, keep=keep
            )
            starts = _starts(images, radius, norm, noise, seed)
            found = []
            for _, batch in in_batches(
                batch_size, device_of(model, images), images, labels, starts
            ):
                found.append(aai_scores(attack, *batch))
                bar.update(len(batch[0]))
            row = _row(radius, steps, all_batches(found))
            if falls_short(radius, size, steps):
                row["short_of_eps"] = True
            rows.append(row)
    return rows


def require_noise(who: str, noise: Tensor | None, images: Tensor, norm: str) -> None:
    """Raise unless noise is None, or a tensor like the images for a ball in linf."""
    if noise is None:
        return
    if not isinstance(noise, Tensor):
        raise InputError(f"{who}: noise must be a tensor, got {type(noise).__name__}.")
    if noise.shape != images.shape or norm != "linf":
        raise InputError(
            f"{who}: noise is for linf and must have the images' shape, {list(images.shape)}, "
            f"got {list(noise.shape)} and {norm}."
        )


def aai_scores(attack: AAI, x: Tensor, y: Tensor, start: Tensor | None = None) -> AAIScores:
    """Attack a batch x [N, C_in, H, W] of true classes y [N] and compare the maps of y."""
    x_adv = attack(x, y, start=start)
    model, interpreter = attack.interpreter.model, attack.interpreter
    with eval_mode(model), torch.no_grad():
        unchanged = predict(model, x) == predict(model, x_adv)
        before, after = (interpreter(each, y[:, None]).flatten(1) for each in (x, x_adv))
    common = topk_intersection(before, after, attack.top.k)
    return AAIScores(kendall_tau(before, after), common, unchanged)


def paper_noise(
    n_test: int,
    n: int,
    shape: Sequence[int],
    seed: int = PAPER_SEED,
    num_classes: int = 10,
) -> Tensor:
    """The random starts of the paper's tables, for the images of `paper_selection`.

    They are drawn right after the selection and the targets, from the same generator, with the
    channels last. The paper drew from [-eps, eps), which is eps times these numbers.

    Args:
        n_test, n, seed, num_classes: as for `paper_selection`.
        shape: (C_in, H, W) of an image.

    Returns:
        [n, C_in, H, W] float64 in [-1, 1).
    """
    random = np.random.RandomState(seed)
    random.permutation(n_test)
    random.randint(num_classes - 1, size=n)
    channels, height, width = shape
    noise = torch.from_numpy(random.uniform(-1, 1, (n, height, width, channels)))
    return noise.permute(0, 3, 1, 2).contiguous()


def _starts(images: Tensor, eps: float, norm: str, noise: Tensor | None, seed: int) -> Tensor:
    """Where the attack starts, [N, C_in, H, W]: drawn for all images, whatever the batches."""
    if noise is None:
        generator = torch.Generator().manual_seed(seed)
        return BALLS[norm](eps, 0.0).init(images, True, generator)
    return (images + eps * noise.to(images.device)).clamp(0, 1).to(images.dtype)


def _row(eps: float, steps: int, found: Sequence[AAIScores]) -> AAIRow:
    tau, common, unchanged = (torch.cat(each) for each in zip(*found, strict=True))
    return AAIRow(
        eps=eps,
        steps=steps,
        kendall_tau=float(tau[unchanged].nanmean()),
        topk_intersection=float(common[unchanged].nanmean()),
        n_unchanged=int(unchanged.sum()),
        n=len(tau),
    )
