"""The strongest search for maps that change: several attacks, and the worst map of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .._utils.require import require_count, require_nonnegative, require_numbers, require_one_of
from ..attacks import AAI, SeededStart
from ..attacks.aai import AAIKind
from ..attacks.checks import require_pixel_eps
from ..attacks.modes import eval_mode
from ..attacks.seeds import start_seeds
from ..attacks.step_size import default_step_size
from ..attacks.threats import BALLS
from ..interpreters import Interpreter
from ..models.gap import device_of
from ..ops import kendall_tau
from ..ops.pgd_step import Norm
from .aai_scores import PAPER_K, AAIRow, require_noise
from .measuring import all_batches, in_batches, predict, progress_bar, require_measurable
from .topk import topk_intersection


@dataclass(frozen=True)
class MapTry:
    """One attack on maps.

    Attributes:
        kind, temperature: of `fastinterp.attacks.AAI`.
        share: of eps, the step size; None takes `default_step_size`.
        start: at x; at a random point; at the worst x' that was found before.
        held: whether the attack holds the prediction. The paper's does not.
    """

    kind: AAIKind
    temperature: float = 0.1
    share: float | None = None
    start: Literal["clean", "random", "worst"] = "random"
    held: bool = True


TRIES = (
    MapTry("topk", held=False),  # the paper's
    MapTry("topk"),
    MapTry("rank", 0.1, 1.0, "clean"),
    MapTry("rank", 0.03, 1.0),
    MapTry("rank", 0.1, 1.0),
    MapTry("rank", 0.03, 0.1, "worst"),
    MapTry("rank", 0.02, 0.05, "worst"),
)


@dataclass
class Worst:
    """The worst that was found for N images so far.

    Attributes:
        x_adv: x' with the lowest tau among those that keep the prediction, x if there is none.
        kendall_tau: its tau-b [N], float64; NaN where the map of x is constant.
        topk_intersection: the lowest share of common positions [N], maybe that of another x'.
    """

    x_adv: Tensor
    kendall_tau: Tensor
    topk_intersection: Tensor


def aai_best_sweep(
    model: nn.Module,
    interpreter: Interpreter,
    images: Tensor,
    labels: Tensor,
    *,
    eps: Sequence[float] | float,
    steps: int = 200,
    k: int = PAPER_K,
    norm: Norm = "linf",
    noise: Tensor | None = None,
    batch_size: int = 40,
    seed: int = 0,
    progress: bool = True,
) -> list[AAIRow]:
    """Agreement of maps under the strongest attacks known here, for each eps.

    Each image is attacked by the paper's AAI, by one that holds the prediction, by
    `AAI(kind="rank")` from x and from random points, and twice more from the worst x' found so far
    in small steps. An x' counts if it is predicted as x is; so does what was found within a smaller
    eps. Each score is the lowest that any of them reaches, and x itself stands where none does, so
    `n_unchanged` is `n`. A random start depends on the image and the seed, not on its place in the
    set or the batch.

    Args:
        model, interpreter, images, labels, eps, k, norm, batch_size, progress: as for `aai_sweep`.
        steps: of each attack.
        noise: of the paper's attack, see `aai_sweep`.
        seed: of the random starts.

    Returns:
        One row for each eps, in the order given.

    Raises:
        InputError: images, labels, noise or a setting do not fit.
    """
    labels = require_measurable("aai_best_sweep", model, images, labels, batch_size)
    radii = [require_nonnegative("eps", radius) for radius in require_numbers("eps", eps)]
    steps = require_count("steps", steps, 0)
    require_count("seed", seed, 0)
    require_one_of("norm", norm, BALLS)
    require_noise("aai_best_sweep", noise, images, norm)
    for radius in radii:
        require_pixel_eps("aai_best_sweep", norm, radius)
    worst = images.clone()
    rows: dict[float, AAIRow] = {}
    in_order = sorted(set(radii))
    with eval_mode(model), progress_bar(len(in_order) * len(images), "img", progress) as bar:
        for radius in in_order:
            bar.set_description(f"eps {radius:.4g}")
            scores = []
            for part, (x, y, before) in in_batches(
                batch_size, device_of(model, images), images, labels, worst
            ):
                search = Search(interpreter, x, y, radius, steps, norm, k, seed)
                given = None if noise is None else noise[part].to(x)
                found = search.run(before, given)
                worst[part] = found.x_adv.to(worst)
                scores.append((found.kendall_tau.cpu(), found.topk_intersection.cpu()))
                bar.update(len(x))
            tau, common = (torch.cat(each) for each in zip(*all_batches(scores), strict=True))
            n = len(images)
            rows[radius] = AAIRow(
                eps=radius,
                steps=steps,
                kendall_tau=float(tau.nanmean()),
                topk_intersection=float(common.nanmean()),
                n_unchanged=n,
                n=n,
            )
    return [rows[radius] for radius in radii]


class Search:
    """The search for the worst maps of one batch: x [N, ...] of true classes y [N] in one ball."""

    def __init__(
        self,
        interpreter: Interpreter,
        x: Tensor,
        y: Tensor,
        eps: float,
        steps: int,
        norm: Norm,
        k: int,
        seed: int,
    ) -> None:
        self.interpreter, self.model = interpreter, interpreter.model
        self.x, self.y = x, y
        self.eps, self.steps, self.norm, self.k, self.seed = eps, steps, norm, k, seed
        self.maps = self._maps(x)
        self.predicted = predict(self.model, x)

    def run(self, before: Tensor, noise: Tensor | None = None) -> Worst:
        """All tries, after x' [N, ...] that are known; `noise` gives the paper's attack its start.

        Every x' in `before` must lie in the ball and keep the prediction.
        """
        worst = self._scored(self.x)
        worst = self._worse(worst, before)
        if self.eps == 0 or self.steps == 0:
            return worst
        for number, one in enumerate(TRIES):
            start = self._start(one, number, worst)
            if noise is not None and not one.held:
                start = (self.x + self.eps * noise).clamp(0, 1)
            size = default_step_size(self.norm, self.eps, self.steps)
            attack = AAI(
                self.model,
                self.interpreter,
                self.eps,
                size if one.share is None else one.share * self.eps,
                self.steps,
                one.kind,
                self.k,
                temperature=one.temperature,
                hinge=10.0 if one.held else 0.0,
                keep="best" if one.held else "last",
                norm=self.norm,
            )
            worst = self._worse(worst, attack(self.x, self.y, start=start))
        return worst

    def _start(self, one: MapTry, number: int, worst: Worst) -> Tensor:
        if one.start == "clean":
            return self.x
        if one.start == "worst":
            return worst.x_adv
        seeds = start_seeds(self.x, self.seed, f"worst map {number}")
        return SeededStart(BALLS[self.norm](self.eps, 0.0), seeds).init(self.x, True, None)

    @torch.no_grad()
    def _maps(self, x: Tensor) -> Tensor:
        return self.interpreter(x, self.y[:, None]).flatten(1)

    def _scored(self, x_adv: Tensor) -> Worst:
        maps = self._maps(x_adv)
        common = topk_intersection(self.maps, maps, self.k)
        return Worst(x_adv, kendall_tau(self.maps, maps), common)

    def _worse(self, worst: Worst, x_adv: Tensor) -> Worst:
        """The lower scores of the two, x_adv's only where it keeps the prediction."""
        other = self._scored(x_adv)
        kept = predict(self.model, x_adv) == self.predicted
        lower = kept & (other.kendall_tau < worst.kendall_tau)  # not where it is NaN
        fewer = kept & (other.topk_intersection < worst.topk_intersection)
        images = lower.view(-1, *[1] * (x_adv.dim() - 1))
        return Worst(
            torch.where(images, x_adv, worst.x_adv),
            torch.where(lower, other.kendall_tau, worst.kendall_tau),
            torch.where(fewer, other.topk_intersection, worst.topk_intersection),
        )
