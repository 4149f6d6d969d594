"""Signs of obfuscated gradients: attacks that do not behave as they do with honest gradients.

Athalye et al. (ICML 2018, section 3.1) list behaviours that betray a defence which merely hides its
gradients. Each is a check here, as are the signs of `reliability`. Passing all of them is no proof
of robustness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_counts, require_number, require_one_of
from ..attacks import APGD, PGD, CrossEntropy, Margin, Square
from ..attacks.checks import as_module, require_batch
from ..attacks.ensemble import Attack, Seeded
from ..attacks.modes import eval_mode, own_autograd
from ..attacks.step_size import fine_step
from ..attacks.threats import BALLS
from ..ops.pgd_step import Norm
from .measuring import Measured, Source, all_images, misclassified, progress_bar
from .reliability import EXAMINED, MISLED, Signs, look_for_signs
from .tables import format_accuracy, format_eps

TOLERANCE = 0.01
ROUNDING = 1e-9  # of a difference between two accuracies
RESTARTS = 5
QUERIES = 500
# How much lower the accuracy under Square may be than under Auto-PGD and PGD, plus one standard
# error: on 200 images, honest networks had up to 0.04 and 0.075, on 50 images up to 0.04 and 0.14.
# In l1, PGD is far weaker than Auto-PGD on any network.
BELOW_APGD = 0.05
BELOW_PGD = {"linf": 0.12, "l2": 0.12, "l1": 1.0}

SENTENCES = {
    "gradient": (
        "The cross-entropy has a gradient at the images.",
        "At some images the gradient of the cross-entropy is zero at every pixel, so attacks that "
        "follow it cannot move.",
    ),
    "direction": (
        "A short step along the gradient of the margin raises it.",
        "At some images a short step along the gradient of the margin does not raise it: the "
        "gradient leads attacks astray.",
    ),
    "randomness": (
        "Two passes over the same images give the same logits.",
        "Two passes over the same images give different logits: attacks judge their steps by "
        "chance. Measure it with sweep(..., samples=20).",
    ),
    "batch": (
        "The logits of an image do not depend on the other images of its batch.",
        "The logits of some images depend on the other images of their batch, so no image has a "
        "verdict of its own.",
    ),
    "input": (
        "A pass leaves the images as they were.",
        "A pass changes the images that it is given, so attacks go on from other images.",
    ),
    "more steps": (
        "More steps never leave a higher accuracy.",
        "More steps left a higher accuracy: the gradient misleads the attack.",
    ),
    "larger eps": (
        "A larger ball never leaves a higher accuracy.",
        "A larger ball left a higher accuracy: the attack misses images that the smaller ball "
        "holds.",
    ),
    "one step": (
        "One long step is no stronger than many short ones.",
        "One long step is stronger than many short ones: the gradient near x misleads the attack.",
    ),
    "black box": (
        "A random search that sees logits alone is no stronger than attacks that follow the "
        "gradient.",
        "A random search that sees logits alone is stronger than attacks that follow the gradient: "
        "the gradient misleads them.",
    ),
    "unbounded": (
        "An attack that may change everything fools the network on every image.",
        "An attack that may change everything does not fool the network on every image: the "
        "gradient misleads it, or it needs more steps.",
    ),
    "transfer": (
        "Images made against another network are no stronger than those made against this one.",
        "Images made against another network are stronger than those made against this one: its "
        "gradient hides what they find.",
    ),
}
"""Name of a check -> what it means that it passed, and that it failed."""


@dataclass(frozen=True)
class Check:
    """One expectation, and what was measured.

    Attributes:
        name: of the check.
        passed: None if it was skipped.
        figures: what was measured, by the attack or ball that gave it: accuracies, or for checks
            without an attack a share of the images.
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
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Source,
    labels: Tensor | None = None,
    *,
    eps: float,
    steps: Sequence[int] = (1, 10, 40, 100),
    norm: Norm = "linf",
    transfer_from: nn.Module | Callable[[Tensor], Tensor] | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 100,
    progress: bool = True,
) -> list[Check]:
    """Look for signs of obfuscated gradients.

    Every attack is PGD on the cross-entropy in the ball, starts at x, takes steps of 2.5 eps /
    steps, and is judged by its last iterate, which should be its best one if the gradient is
    honest. The unbounded attack alone may stop at the first iterate that fools the network. As an
    ascent may stop at a local maximum, images that it does not fool are attacked on the margin,
    first from x and then from five random points.

    The black-box check compares Square with 500 queries with PGD, and with Auto-PGD on the
    cross-entropy, then on the margin.

    Args:
        model: the network that claims to be robust, or a function from images to logits.
        images: [N, C_in, H, W] in [0, 1]; or a DataLoader or `data.stream`, which is read once for
            each attack.
        labels: true classes [N], for a tensor of images.
        eps: the radius of that claim, in pixel units. The radii tried are eps / 4, eps / 2, eps,
            2 eps, and that of a ball around any image that holds all images (linf: 1).
        steps: numbers of steps of an attack; one step is always added.
        norm: of the ball, "linf", "l2" or "l1".
        transfer_from: another network for the same images, whose adversarial images are tried on
            `model`; None skips that check.
        tolerance: the share of the images by which an accuracy may rise where it should not. The
            last iterates of different attacks differ a little on any network.
        batch_size: images attacked at a time.
        progress: show a bar where standard error is a terminal.

    Returns:
        The checks: gradient, direction, randomness, batch, input, more steps, larger eps, one
        step, black box, unbounded, transfer.

    Raises:
        InputError: images, labels or a setting do not fit.
    """
    model = as_module("audit", model)
    measured = Measured("audit", model, images, labels, batch_size, again=True)
    x, y = measured.first()
    if transfer_from is not None:
        transfer_from = as_module("audit: transfer_from", transfer_from)
        require_batch("audit: transfer_from", transfer_from, x, y, False)
    if not 0 <= require_number("tolerance", tolerance) < 1:
        raise InputError(f"tolerance must be a fraction in [0, 1), got {tolerance!r}.")
    counts = sorted({1, *require_counts("steps", steps)})
    most = counts[-1]
    if most == 1:
        raise InputError(f"steps must hold a number above 1, got {list(steps)}.")
    require_one_of("norm", norm, BALLS)
    pixels = x[0].numel()
    whole = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]
    if not 0 < require_number("eps", eps) < whole:
        raise InputError(
            f"eps must lie between 0 and {whole:g}, the radius of the unbounded attack, "
            f"got {eps!r}."
        )
    radii = [radius for radius in (eps / 4, eps / 2, 2 * eps) if radius < whole]
    attacks = len(counts) + len(radii) + 2 + 2 + (transfer_from is not None)
    with eval_mode(model), progress_bar(attacks, "attack", progress) as bar:
        subject = _Subject(model, measured, norm, bar)
        by_steps = {count: subject.accuracy(subject.pgd(eps, count)) for count in counts}
        by_eps = {0.0: subject.accuracy(subject.pgd(0.0, 0)), eps: by_steps[most]}
        by_eps |= {radius: subject.accuracy(subject.pgd(radius, most)) for radius in radii}
        by_eps[whole] = subject.unbounded(whole, most)
        by_eps = dict(sorted(by_eps.items()))
        transferred = None
        if transfer_from is not None:
            transferred = subject.accuracy(subject.pgd(eps, most, transfer_from))
        black_box = subject.black_box(eps, most, by_eps[eps])
        flat = subject.share_without_gradient()
        some, classes = measured.first(EXAMINED)
        signs = look_for_signs(model, some, classes, norm, eps, batch_size)
    slack = tolerance + ROUNDING
    return [
        _check("gradient", flat <= slack, {"share of images without one": flat}),
        *_without_attack(signs),
        _check("more steps", not rises(by_steps.values(), tolerance), _by_count(by_steps)),
        _check("larger eps", not rises(by_eps.values(), tolerance), _by_radius(by_eps)),
        _check(
            "one step",
            by_steps[most] <= by_steps[1] + slack,
            _by_count({count: by_steps[count] for count in (1, most)}),
        ),
        black_box,
        _check("unbounded", by_eps[whole] == 0, _by_radius({whole: by_eps[whole]})),
        Check("transfer", None, {}, "No other network was given to make adversarial images with.")
        if transferred is None
        else _check(
            "transfer",
            by_eps[eps] <= transferred + slack,
            {"own gradients": by_eps[eps], "another network's": transferred},
        ),
    ]


@dataclass(frozen=True)
class _Subject:
    """The network that is audited, and what all attacks on it share; `bar` counts these."""

    model: nn.Module
    images: Measured
    norm: Norm
    bar: Any

    def pgd(self, eps: float, steps: int, source: nn.Module | None = None, **settings: Any) -> PGD:
        size = fine_step(eps, steps)
        return PGD(source or self.model, eps, size, steps, self.norm, **settings)

    def accuracy(self, *attacks: Attack) -> float:
        """The share of images that withstand all attacks; each attacks those that are left."""
        right = count = 0
        for _, (x, y) in self.images:
            count += len(y)
            for attack in attacks:
                holds = ~misclassified(self.model, attack(x, y), y)
                x, y = x[holds], y[holds]
            right += len(y)
        self.bar.update()
        return all_images(right) / all_images(count)

    def unbounded(self, eps: float, steps: int) -> float:
        """Under cross-entropy, then the margin from x, then the margin from random points."""
        margin: dict[str, Any] = {"objective": Margin(), "keep": "first_fooled"}
        restarts = self.pgd(eps, steps, **margin, random_start=True, restarts=RESTARTS)
        return self.accuracy(
            self.pgd(eps, steps, keep="first_fooled"),
            self.pgd(eps, steps, **margin),
            Seeded(restarts, 0, "unbounded"),
        )

    def black_box(self, eps: float, steps: int, plain: float) -> Check:
        """Square against attacks that follow the gradient; PGD left the accuracy `plain`."""
        white = self.accuracy(
            *(
                Seeded(APGD(self.model, eps, steps, self.norm, objective=climbed), 0, "black box")
                for climbed in (CrossEntropy(), Margin())
            )
        )
        black = self.accuracy(Square(self.model, eps, QUERIES, self.norm))
        count = all_images(sum(len(y) for _, (_, y) in self.images))
        lowest = min(white, black)
        passed = white <= _above(black, BELOW_APGD, count)
        passed = passed and plain <= _above(lowest, BELOW_PGD[self.norm], count)
        figures = {"PGD": plain, "Auto-PGD": white, f"{QUERIES} queries": black}
        return _check("black box", passed, figures)

    def share_without_gradient(self) -> float:
        """The share of images at which the cross-entropy's gradient is zero at every pixel."""
        flat = count = 0
        for _, (x, y) in self.images:
            count += len(y)
            with own_autograd(x.device.type):
                x = x.detach().clone().requires_grad_()
                loss = F.cross_entropy(self.model(x), y, reduction="sum")
                (grad,) = torch.autograd.grad(loss, x, materialize_grads=True)
            flat += int((grad == 0).flatten(1).all(dim=1).sum())
        return all_images(flat) / all_images(count)


def audit_table(checks: Sequence[Check]) -> tuple[list[str], list[list[str]]]:
    """Checks -> header and body: name, result, figures."""
    body = []
    for check in checks:
        figures = [f"{name}: {format_accuracy(value)}" for name, value in check.figures.items()]
        body.append([check.name, check.word, ", ".join(figures) or "-"])
    return ["check", "result", "measured"], body


def rises(accuracies: Iterable[float], tolerance: float) -> bool:
    """Whether an accuracy is above the lowest one before it by more than `tolerance`."""
    lowest = math.inf
    for before, after in pairwise(accuracies):
        lowest = min(lowest, before)
        if after > lowest + tolerance + ROUNDING:
            return True
    return False


def _above(low: float, limit: float, count: int) -> float:
    """What an accuracy may reach beside the lower one `low` of `count` images: `limit` and a
    standard error more."""
    return low + limit + math.sqrt(low * (1 - low) / count) + ROUNDING


def _check(name: str, passed: bool, figures: dict[str, float]) -> Check:
    return Check(name, passed, figures, SENTENCES[name][not passed])


def _without_attack(signs: Signs) -> list[Check]:
    shares = {"direction": signs.misled, "randomness": signs.random}
    shares |= {"batch": signs.neighbours, "input": signs.in_place}
    most = {"direction": MISLED}
    return [
        _check(name, share <= most.get(name, 0.0), {"share of images": share})
        for name, share in shares.items()
    ]


def _by_count(accuracies: Mapping[int, float]) -> dict[str, float]:
    return {
        "1 step" if count == 1 else f"{count} steps": value for count, value in accuracies.items()
    }


def _by_radius(accuracies: Mapping[float, float]) -> dict[str, float]:
    return {f"eps {format_eps(radius)}": value for radius, value in accuracies.items()}
