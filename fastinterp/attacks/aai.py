"""Attack against interpretability: change the explanation, leave the prediction, eq. (7)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_nonnegative, require_one_of, require_positive
from ..interpreters import Interpreter
from ..models.gap import Needs
from .ascent import Keep, ascend
from .checks import require_batch, require_images
from .climber import FixedSteps, falling_steps
from .map_objectives import Capped, MapDistance, TopK, require_same_model
from .objectives import Margin, Objective, Value
from .outputs import Outputs
from .rank import Rank
from .step_size import PAPER_STEP_SIZE
from .threats import BALLS, Ball
from .watch import Watch

AAIKind = Literal["topk", "discrepancy", "rank"]
AAI_KINDS: tuple[AAIKind, ...] = get_args(AAIKind)


@hint_keywords
class AAI(Described):
    """Attack against interpretability, eq. (7).

    "topk" lowers the true class's map at the k largest positions of the clean map (Ghorbani et
    al., 2019). "discrepancy" increases the 1-class discrepancy of eq. (3). "rank" lowers Kendall's
    tau between the maps: it climbs a smooth form of it in steps that fall linearly from `step_size`
    (in l1 in the sparse steps of APGD), and the best iterate is the one with the lowest tau. It is
    by far the strongest of the three for a score of ranks, and 100 steps are enough.

    The prediction stays the same: the attack adds the hinge of eq. (7) to its objective, and it
    returns the best iterate with the same prediction as x, or x itself if there is none. The
    paper's Tables 2, A4 and A5 did neither, `hinge=0, keep="last"`, and averaged over the images
    whose prediction did not change.

    Args:
        model: the network that is attacked.
        interpreter: explains the same model.
        eps: radius of the ball around x, in pixel units: a number, or a tensor [N].
        step_size: of one step, for "rank" of the first step: a number or a tensor [N]. None: the
            paper's 0.01, for "rank" eps.
        steps: number of steps.
        kind: "topk", "discrepancy" or "rank".
        k: positions of a map, for "topk"; all its channels count together.
        p: norm of the discrepancy, 1 or 2.
        temperature: for "rank", how smooth the climbed form of tau is; see `soft_tau`.
        hinge: lambda of eq. (7), for the class that is predicted at x; 0: no hinge.
        norm: of the ball, "linf", "l2" or "l1".
        random_start: start at a point drawn uniformly from the ball instead of at x.
        keep: which iterate is returned. "best": the one with the highest objective, with a hinge
            among those that keep the prediction. "last": the last one, whatever its prediction.
        generator: for reproducible random starts.
        lower, upper: the range of valid pixels.

    Raises:
        InputError: a setting is out of its range, or the interpreter explains another model.
    """

    def __init__(
        self,
        model: nn.Module,
        interpreter: Interpreter,
        eps: float | Tensor,
        step_size: float | Tensor | None = None,
        steps: int = 200,
        kind: AAIKind = "topk",
        k: int = 8,
        *,
        p: Literal[1, 2] = 1,
        temperature: float = 0.1,
        hinge: float = 10.0,
        norm: str = "linf",
        random_start: bool = True,
        keep: Keep = "best",
        generator: torch.Generator | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_same_model("AAI", model, interpreter)
        require_one_of("AAI: norm", norm, BALLS)
        require_one_of("AAI: kind", kind, AAI_KINDS)
        require_one_of("AAI: p", p, (1, 2))
        require_one_of("AAI: keep", keep, ("last", "best"))
        require_nonnegative("AAI: hinge", hinge)
        steps = require_count("AAI: steps", steps, 0)
        self.model = model
        self.interpreter = interpreter
        if step_size is None:
            step_size = eps if kind == "rank" else PAPER_STEP_SIZE
        self.threat: Ball = BALLS[norm](eps, step_size, lower, upper)
        self.climber = falling_steps(self.threat) if kind == "rank" else FixedSteps()
        self.steps = steps
        self.kind: AAIKind = kind
        self.p: Literal[1, 2] = p
        self.temperature = require_positive("AAI: temperature", temperature)
        self.hinge = hinge
        self.top = TopK(interpreter, k)
        self.random_start = random_start
        self.keep: Keep = keep
        self.generator = generator
        self.lower, self.upper = lower, upper

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, C_in, H, W] in [lower, upper], on the model's device.
            y: true classes [N], whose map is attacked.
            generator: used instead of the one given at construction.
            start: images [N, C_in, H, W] in the ball to start at, instead of x or a random point.

        Returns:
            x_adv, like x, detached.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; a discrepancy would
                be climbed from x, where its gradient is zero; the gradient is not finite.
        """
        y = require_batch("AAI", self.model, x, y, False, self.lower, self.upper)
        if start is not None:
            require_images("AAI: start", start, self.lower, self.upper)
            if start.shape != x.shape or start.device != x.device:
                raise InputError(
                    f"AAI: start must be like x, {list(x.shape)} on {x.device}, "
                    f"got {list(start.shape)} on {start.device}."
                )
        elif self.kind == "discrepancy" and not self.random_start:
            raise InputError(
                "AAI: the discrepancy has no gradient at x; pass random_start=True or a start."
            )
        watch = Watch()
        x_adv = ascend(
            self.model,
            watch.over(self.threat),
            self.objective(y),
            x,
            y,
            self.steps,
            random_start=self.random_start,
            generator=generator or self.generator,
            keep=self.keep,
            start=None if start is None else start.to(x),
            climber=self.climber,
        )
        watch.require_finite("AAI", x_adv)
        return x_adv

    def objective(self, y: Tensor) -> Objective:
        """What is climbed for true classes y [N]."""
        change: Objective = self.top
        if self.kind == "discrepancy":
            change = MapDistance(self.interpreter, y[:, None], self.p)
        elif self.kind == "rank":
            change = Rank(self.interpreter, self.temperature)
        if self.hinge == 0:
            return change
        held = change + self.hinge * Hinge()
        return held + SamePrediction() if self.keep == "best" else held


class Hinge(Objective):
    """Minus the hinge of eq. (7), min(f_t(x') - max_{j != t} f_j(x'), 0), t being predicted at x.

    Of images that the model gets right, t is the true class, as in the paper.
    """

    needs: Needs = "logits"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        return Capped(Margin(targeted=True), 0.0).prepare(clean, clean.logits.argmax(dim=1))


class SamePrediction(Objective):
    """Minus infinity where x' is not predicted as x is, so that it is never the best; else 0.

    Targeted: where x' is not predicted as its label.
    """

    needs: Needs = "logits"

    def __init__(self, targeted: bool = False) -> None:
        self.targeted = targeted

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        wanted = labels if self.targeted else clean.logits.argmax(dim=1)

        def value(adv: Outputs) -> Tensor:
            other = adv.logits.argmax(dim=1) != wanted
            return adv.logits.new_zeros(len(other)).masked_fill(other, -torch.inf)

        return value
