"""Signs of obfuscated gradients: what attacks do to a network whose gradients tell the truth.

Athalye et al. (ICML 2018, section 3.1) list behaviours that betray a defence which merely hides its
gradients. Each is a check here. Passing all of them is no proof of robustness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..attacks import PGD, CrossEntropy, Margin, Objective
from ..attacks.ascent import Keep
from ..attacks.checks import require_batch
from ..attacks.modes import eval_mode, own_autograd
from ..errors import InputError
from ..models import GapClassifier
from .protocols import fine_step
from .tables import format_accuracy, format_eps
from .tries import predict

TOLERANCE = 0.01
CROSS_ENTROPY = CrossEntropy()


@dataclass(frozen=True)
class Check:
    """One expectation, and what was measured.

    Attributes:
        name: of the check.
        passed: None where it was skipped.
        figures: what was measured by what gave it; accuracies, but for the gradient's share.
        sentence: what it means.
    """

    name: str
    passed: bool | None
    figures: dict[str, float]
    sentence: str

    @property
    def word(self) -> str:
        return {True: "passed", False: "FAILED", None: "skipped"}[self.passed]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    model: GapClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: Sequence[int] = (1, 10, 40, 100),
    transfer_from: GapClassifier | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 100,
    progress: bool = True,
) -> list[Check]:
    """Look for signs of obfuscated gradients.

    Every attack is PGD on the cross-entropy in the linf ball, starts at x, takes steps of
    2.5 eps / steps, and is judged by its last iterate, which an attack with true gradients does not
    lose. Only the unbounded one (eps 1) may stop at the first iterate that fools the network, and
    climbs the margin where the cross-entropy does not get there, as it may stop at a local maximum.

    Args:
        model: the network that claims to be robust.
        images: [N, C_in, H, W] in [0, 1].
        labels: true classes [N].
        eps: the radius at which it claims so, in pixel units; the radii tried are a quarter and
            half of it, itself, twice it, and 1.
        steps: numbers of steps of an attack, two or more.
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
    from tqdm import tqdm

    steps, radii = _steps(steps), _radii(eps)
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance must be a fraction in [0, 1), got {tolerance!r}.")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}.")
    if len(images) == 0:
        raise InputError("audit: there are no images to measure on.")
    images, labels = images.to(model.device), labels.to(model.device)
    labels = require_batch("audit", model, images, labels, False)
    if transfer_from is not None:
        require_batch("audit", transfer_from, images, labels, False)
    runs = len(steps) + len(radii) - 1 + (transfer_from is not None)
    most = steps[-1]
    with tqdm(total=runs, unit="attack", disable=None if progress else True) as bar:

        def accuracy(radius: float, count: int, source: GapClassifier = model, **how: Any) -> float:
            found = attacked_accuracy(
                model, source, images, labels, radius, count, batch_size=batch_size, **how
            )
            bar.update()
            return found

        clean = attacked_accuracy(model, model, images, labels, 0.0, 0, batch_size=batch_size)
        by_steps = {count: accuracy(eps, count) for count in steps}
        inner = {0.0: clean} | {r: accuracy(r, most) for r in radii if r not in (eps, 1.0)}
        unbounded = accuracy(1.0, most, keep="first_fooled", objectives=(CROSS_ENTROPY, Margin()))
        by_eps = dict(sorted((inner | {eps: by_steps[most], 1.0: unbounded}).items()))
        white = by_steps[most]
        black = None if transfer_from is None else accuracy(eps, most, source=transfer_from)
        flat = flat_share(model, images, labels, batch_size)
    return [
        _gradient(flat, tolerance),
        _more_steps(by_steps, tolerance),
        _larger_eps(by_eps, tolerance),
        _one_step(by_steps, tolerance),
        _unbounded(unbounded),
        _transfer(white, black, tolerance),
    ]


def attacked_accuracy(
    model: GapClassifier,
    source: GapClassifier,
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int,
    *,
    keep: Keep = "last",
    objectives: Sequence[Objective] = (CROSS_ENTROPY,),
    batch_size: int = 100,
) -> float:
    """The accuracy of `model` on images made against `source`, by PGD from x in fine steps.

    With several objectives an image counts as right if it withstands all of them.
    """
    size = fine_step(eps, steps)
    attacks = [PGD(source, eps, size, steps, objective=one, keep=keep) for one in objectives]
    right = 0
    with eval_mode(model), torch.no_grad():
        for x, y in _batches(images, labels, batch_size):
            held = [predict(model, attack(x, y)) == y for attack in attacks]
            right += int(torch.stack(held).all(dim=0).sum())
    return right / len(images)


def flat_share(
    model: GapClassifier, images: Tensor, labels: Tensor, batch_size: int = 100
) -> float:
    """The share of images x at which the gradient of the cross-entropy is zero at every pixel."""
    flat = 0
    with eval_mode(model), own_autograd(images.device.type):
        for x, y in _batches(images, labels, batch_size):
            x = x.detach().clone().requires_grad_()
            value = CROSS_ENTROPY.bind(model, x.detach(), y)(x).value.sum()
            (grad,) = torch.autograd.grad(value, x, materialize_grads=True)
            flat += int((grad == 0).flatten(1).all(dim=1).sum())
    return flat / len(images)


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(images, size), torch.split(labels, size), strict=True)


def _steps(steps: Sequence[int]) -> list[int]:
    """In rising order, with the single step that one of the checks needs."""
    if any(count < 1 or count != int(count) for count in steps) or max(steps, default=0) < 2:
        raise InputError(
            f"steps must be whole numbers >= 1, one of them above 1, got {list(steps)}."
        )
    return sorted({1, *map(int, steps)})


def _radii(eps: float) -> list[float]:
    if not (math.isfinite(eps) and 0 < eps < 1):
        raise InputError(f"eps must lie between 0 and 1, the unbounded attack, got {eps!r}.")
    return sorted({eps / 4, eps / 2, eps, min(2 * eps, 1.0), 1.0})


def _rises(accuracies: Sequence[float], tolerance: float) -> bool:
    """Whether an accuracy is above the lowest before it; rises too small alone add up."""
    lowest = math.inf
    for before, after in pairwise(accuracies):
        lowest = min(lowest, before)
        if after > lowest + tolerance + 1e-9:
            return True
    return False


def _gradient(flat: float, tolerance: float) -> Check:
    passed = flat <= tolerance + 1e-9
    return Check(
        "gradient",
        passed,
        {"share of images without one": flat},
        "The cross-entropy has a gradient at the images."
        if passed
        else "At some images the gradient of the cross-entropy is zero at every pixel: "
        "attacks that follow it cannot move.",
    )


def _counted(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def _more_steps(by_steps: dict[int, float], tolerance: float) -> Check:
    passed = not _rises(list(by_steps.values()), tolerance)
    return Check(
        "more steps",
        passed,
        {_counted(count): found for count, found in by_steps.items()},
        "More steps never leave a higher accuracy."
        if passed
        else "More steps left a higher accuracy: the gradient leads the attack astray.",
    )


def _larger_eps(by_eps: dict[float, float], tolerance: float) -> Check:
    passed = not _rises(list(by_eps.values()), tolerance)
    return Check(
        "larger eps",
        passed,
        {f"eps {format_eps(radius)}": found for radius, found in by_eps.items()},
        "A larger ball never leaves a higher accuracy."
        if passed
        else "A larger ball left a higher accuracy: the attack misses what the smaller one holds.",
    )


def _one_step(by_steps: dict[int, float], tolerance: float) -> Check:
    most = max(by_steps)
    passed = by_steps[most] <= by_steps[1] + tolerance + 1e-9
    return Check(
        "one step",
        passed,
        {_counted(1): by_steps[1], _counted(most): by_steps[most]},
        "One long step is no stronger than many short ones."
        if passed
        else "One long step is stronger than many short ones, which lose their way near x.",
    )


def _unbounded(accuracy: float) -> Check:
    passed = accuracy == 0
    return Check(
        "unbounded",
        passed,
        {"eps 1": accuracy},
        "An attack that may change everything fools the network on every image."
        if passed
        else "An attack that may change everything does not fool the network on every image: "
        "gradients mislead it, or it needs more steps.",
    )


def _transfer(white: float, black: float | None, tolerance: float) -> Check:
    if black is None:
        return Check(
            "transfer", None, {}, "No other network was given to make adversarial images with."
        )
    passed = white <= black + tolerance + 1e-9
    return Check(
        "transfer",
        passed,
        {"own gradients": white, "another network's": black},
        "Images made against another network are no stronger than its own."
        if passed
        else "Images made against another network are stronger than its own: "
        "its gradients hide what they find.",
    )


def audit_table(checks: Sequence[Check]) -> tuple[list[str], list[list[str]]]:
    """Checks -> header and body: name, result, accuracies."""
    return ["check", "result", "measured"], [
        [check.name, check.word, _shown(check.figures)] for check in checks
    ]


def _shown(figures: Mapping[str, float]) -> str:
    if not figures:
        return "-"
    return ", ".join(f"{name}: {format_accuracy(value)}" for name, value in figures.items())
