"""Signs of obfuscated gradients: what attacks do to a network whose gradients tell the truth.

Athalye et al. (ICML 2018, section 3.1) list behaviours that betray a defence which merely hides its
gradients. Each is a check here. Passing all of them is no proof of robustness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_count, require_numbers
from ..attacks import PGD, CrossEntropy, Margin
from ..attacks.checks import require_batch
from ..attacks.modes import eval_mode, own_autograd
from ..attacks.step_size import fine_step
from ..attacks.threats import BALLS
from ..models import GapClassifier
from ..models.gap import require_gap
from ..ops.pgd_step import Norm
from .audit_checks import Check, gradient, larger_eps, more_steps, one_step, transfer, unbounded
from .bar import progress_bar
from .tries import predict

TOLERANCE = 0.01
RESTARTS = 5
CROSS_ENTROPY = CrossEntropy()


def audit(
    model: GapClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: Sequence[int] = (1, 10, 40, 100),
    norm: Norm = "linf",
    transfer_from: GapClassifier | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 100,
    progress: bool = True,
) -> list[Check]:
    """Look for signs of obfuscated gradients.

    Every attack is PGD on the cross-entropy in the ball, starts at x, takes steps of 2.5 eps /
    steps, and is judged by its last iterate, which an attack with true gradients does not lose.
    Only the unbounded one may stop at the first iterate that fools the network, and tries harder
    where the cross-entropy does not get there, as a climb may stop at a local maximum: it climbs
    the margin, from x and then from five random points.

    Args:
        model: the network that claims to be robust.
        images: [N, C_in, H, W] in [0, 1].
        labels: true classes [N].
        eps: the radius at which it claims so, in pixel units; the radii tried are a quarter and
            half of it, itself, twice it, and that of the unbounded attack (linf: 1).
        steps: numbers of steps of an attack, two or more.
        norm: of the ball, "linf", "l2" or "l1".
        transfer_from: another network for the same images, whose adversarial images are tried on
            `model`; None skips that check.
        tolerance: by what fraction of the images an accuracy may rise where it should not. The last
            iterates of different attacks differ a little on any network.
        batch_size: images attacked at a time.
        progress: show a bar where standard error is a terminal.

    Returns:
        The checks: gradient, more steps, larger eps, one step, unbounded, transfer.

    Raises:
        InputError: images, labels or a setting do not fit.
    """
    require_gap("audit", model)
    steps = _steps(steps)
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance must be a fraction in [0, 1), got {tolerance!r}.")
    require_count("batch_size", batch_size)
    if len(images) == 0:
        raise InputError("audit: there are no images to measure on.")
    images, labels = images.to(model.device), labels.to(model.device)
    labels = require_batch("audit", model, images, labels, False)
    if transfer_from is not None:
        require_batch("audit", transfer_from, images, labels, False)
    whole = everything(norm, images)
    radii = _radii(eps, whole)
    bench = _Bench(model, images, labels, norm, batch_size)
    runs = len(steps) + len(radii) + 1 + (transfer_from is not None)
    with progress_bar(runs, "attack", progress) as bar:
        bench.done = bar.update
        found = _measure(bench, eps, steps, radii, whole, transfer_from)
    flat = flat_share(model, images, labels, batch_size)
    return [
        gradient(flat, tolerance),
        more_steps(found.by_steps, tolerance),
        larger_eps(found.by_eps, tolerance),
        one_step(found.by_steps, tolerance),
        unbounded(found.by_eps[whole], whole),
        transfer(found.by_eps[eps], found.transferred, tolerance),
    ]


class _Accuracies(NamedTuple):
    """Accuracies by number of steps at eps, by radius at most steps, and under transfer."""

    by_steps: dict[int, float]
    by_eps: dict[float, float]
    transferred: float | None


@dataclass
class _Bench:
    """What all attacks of an audit share."""

    model: GapClassifier
    images: Tensor
    labels: Tensor
    norm: Norm
    batch_size: int
    done: Callable[[], object] = bool

    def accuracy(self, eps: float, steps: int, source: GapClassifier | None = None) -> float:
        """Under PGD from x in fine steps, the last iterate judged."""
        size = fine_step(eps, steps)
        attack = PGD(source or self.model, eps, size, steps, self.norm)
        return self._left([attack])

    def unbounded(self, eps: float, steps: int) -> float:
        """Under three attacks in turn, each on the images that withstood those before it."""
        how = (self.model, eps, fine_step(eps, steps), steps, self.norm)
        generator = torch.Generator(self.images.device).manual_seed(0)
        restarted: dict[str, Any] = {"random_start": True, "restarts": RESTARTS}
        return self._left(
            [
                PGD(*how, keep="first_fooled"),
                PGD(*how, objective=Margin(), keep="first_fooled"),
                PGD(
                    *how,
                    objective=Margin(),
                    keep="first_fooled",
                    generator=generator,
                    **restarted,
                ),
            ]
        )

    def _left(self, attacks: Sequence[PGD]) -> float:
        """The share of images that withstand all attacks."""
        right = 0
        with eval_mode(self.model), torch.no_grad():
            for x, y in _batches(self.images, self.labels, self.batch_size):
                for attack in attacks:
                    held = predict(self.model, attack(x, y)) == y
                    x, y = x[held], y[held]
                right += len(y)
        self.done()
        return right / len(self.images)


def _measure(
    bench: _Bench,
    eps: float,
    steps: Sequence[int],
    radii: Sequence[float],
    whole: float,
    transfer_from: GapClassifier | None,
) -> _Accuracies:
    most = steps[-1]
    by_steps = {count: bench.accuracy(eps, count) for count in steps}
    by_eps = {0.0: bench.accuracy(0.0, 0), eps: by_steps[most]}
    by_eps |= {radius: bench.accuracy(radius, most) for radius in radii if radius not in by_eps}
    by_eps[whole] = bench.unbounded(whole, most)
    transferred = None
    if transfer_from is not None:
        transferred = bench.accuracy(eps, most, source=transfer_from)
    return _Accuracies(by_steps, dict(sorted(by_eps.items())), transferred)


def everything(norm: Norm, images: Tensor) -> float:
    """The radius of the ball around any image that holds all images like `images` [N, ...]."""
    if norm not in BALLS:
        raise InputError(f"norm must be one of {', '.join(BALLS)}, got {norm!r}.")
    pixels = images[0].numel()
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def flat_share(
    model: GapClassifier, images: Tensor, labels: Tensor, batch_size: int = 100
) -> float:
    """The share of images x at which the gradient of the cross-entropy is zero at every pixel."""
    flat = 0
    with eval_mode(model), own_autograd(images.device.type):
        for x, y in _batches(images, labels, batch_size):
            x = x.detach().clone().requires_grad_()
            value = F.cross_entropy(model(x), y, reduction="sum")
            (grad,) = torch.autograd.grad(value, x, materialize_grads=True)
            flat += int((grad == 0).flatten(1).all(dim=1).sum())
    return flat / len(images)


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(images, size), torch.split(labels, size), strict=True)


def _steps(steps: Sequence[float]) -> list[int]:
    """In rising order, with the single step that one of the checks needs."""
    steps = require_numbers("steps", steps)
    if any(count < 1 or count != int(count) for count in steps) or max(steps, default=0) < 2:
        raise InputError(
            f"steps must be whole numbers >= 1, one of them above 1, "
            f"got {', '.join(f'{count:g}' for count in steps)}."
        )
    return sorted({1, *map(int, steps)})


def _radii(eps: float, whole: float) -> list[float]:
    """Those below the one that holds every image."""
    if not (math.isfinite(eps) and 0 < eps < whole):
        raise InputError(
            f"eps must lie between 0 and {whole:g}, the unbounded attack, got {eps!r}."
        )
    return [radius for radius in (eps / 4, eps / 2, eps, 2 * eps) if radius < whole]
