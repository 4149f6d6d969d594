"""All steps of an attack in one launch, for the attacks and networks that `ops.climb` serves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.folded import FoldedClassifier
from ..models.freeze import convolutions
from ..ops import climb as climb_op
from ..ops.climb import Target
from ..ops.conv_stack import Convolution
from ..ops.discrepancy import Reduction
from .climber import Climber, FixedSteps
from .objectives import KL, CrossEntropy, Discrepancy, Objective, Scaled, Sum
from .outputs import Outputs
from .seeded_start import SeededStart
from .threats import Around, LinfBall, Threat, like
from .watch import Watched


@torch.no_grad()
def climb_at_once(
    threat: Threat,
    objective: Objective,
    climber: Climber,
    clean: Outputs,
    x: Tensor,
    y: Tensor,
    steps: int,
    *,
    random_start: bool,
    generator: torch.Generator | None,
    start: Tensor | None,
    precision: str,
) -> Tensor | None:
    """x' after all steps, as `ascend` takes them; None where no kernel serves.

    It serves float32 images on a GPU, `FixedSteps` in a `LinfBall`, weighted sums of cross-entropy,
    KL and the discrepancy, and networks whose last convolution `fold` has made to give the class
    maps or logits: the paper's Small.

    Args:
        clean: the network, folded, and its outputs at x; those that the objective reads.
        precision: "tf32" is served too, in float32; "bf16" is not.
    """
    if type(climber) is not FixedSteps or precision == "bf16" or not climb_op.available(x):
        return None
    ball, layers, terms = _ball(threat), _layers(clean, x), _terms(objective)
    if ball is None or layers is None or terms is None or not climb_op.fits(x, layers):
        return None
    target = _target(terms, clean, y)
    if target is None:
        return None
    drawn = start is None and random_start and _draws_alone(threat, ball)
    if start is None:
        start = ball.draws(x, generator).view_as(x) if drawn else x
        if random_start and not drawn:
            start = threat.init(x, random_start, generator)
    eps, step_size = like(ball.eps, x), like(ball.step_size, x)
    x_adv, grad, _ = climb_op.climb(
        x, start, layers, target, steps, step_size, eps, ball.lower, ball.upper, drawn=drawn
    )
    while isinstance(threat, Around):
        if isinstance(threat, Watched):
            threat.watch.see(grad)
        threat = threat.threat
    return x_adv


def _ball(threat: Threat) -> LinfBall | None:
    """The ball that the threat is, with nothing around it that steps otherwise."""
    while type(threat) in (Watched, SeededStart):
        threat = threat.threat  # type: ignore[attr-defined]
    same = isinstance(threat, LinfBall) and all(
        getattr(type(threat), name) is getattr(LinfBall, name)
        for name in ("init", "step", "render", "_noise")
    )
    return threat if same else None  # type: ignore[return-value]


def _draws_alone(threat: Threat, ball: LinfBall) -> bool:
    """Whether a random start draws for these images in one go."""
    while type(threat) is Watched:
        threat = threat.threat
    return threat is ball and ball.share is None


def _layers(clean: Outputs, x: Tensor) -> list[Convolution] | None:
    """The convolutions of a network whose features are its class maps or logits."""
    model = clean.model
    if not isinstance(model, FoldedClassifier) or model.head.classifier is not None or x.dim() != 4:
        return None
    return convolutions(model, (x.shape[2], x.shape[3]))


Terms = list[tuple[Objective, float]]


def _target(terms: Terms, clean: Outputs, labels: Tensor) -> Target | None:
    """The sum that `ops.climb` maximises; it has no two kinds of discrepancy."""
    cross_entropy = kl = discrepancy = 0.0
    reductions: set[Reduction] = set()
    for term, weight in terms:
        if isinstance(term, CrossEntropy):
            cross_entropy += weight * term.sign
        elif isinstance(term, Discrepancy):
            discrepancy += weight * term.scale(clean.features)
            reductions.add(term.reduction)
        else:
            kl += weight
    if len(reductions) > 1:
        return None
    return Target(
        labels,
        clean.bias,
        cross_entropy,
        kl,
        discrepancy,
        log_p=F.log_softmax(clean.logits, dim=1) if kl else None,
        maps=clean.features if discrepancy else None,
        reduction=reductions.pop() if reductions else "weighted",
    )


def _terms(objective: Objective, weight: float = 1.0) -> Terms | None:
    """The terms of a sum with their weights; None if the kernel does not know one of them."""
    if type(objective) in (CrossEntropy, KL, Discrepancy):
        return [(objective, weight)]
    if type(objective) is Scaled and not isinstance(objective.weight, Tensor):
        return _terms(objective.term, weight * float(objective.weight))
    if type(objective) is not Sum:
        return None
    found: Terms = []
    for term in objective.terms:
        terms = _terms(term, weight)
        if terms is None:
            return None
        found += terms
    return found
