"""Square: random search that only asks for logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import (
    require_count,
    require_number,
    require_one_of,
    require_positive,
    require_seed,
)
from ..models.freeze import fold, freeze
from ..ops.pgd_step import Norm
from .ascent import is_fooled
from .checks import as_module, require_batch
from .modes import eval_mode, own_autograd
from .seeds import image_seeds
from .square_proposals import SCHEDULED, L1Proposals, L2Proposals, LinfProposals, Proposals
from .threats import require_radius, rows_of
from .watch import require_finite_logits

PROPOSALS: dict[str, type[Proposals]] = {
    "linf": LinfProposals,
    "l2": L2Proposals,
    "l1": L1Proposals,
}
# After this share of the queries, the share of its margin at x that an image may have left.
SCREEN = ((0.05, 0.7), (0.1, 0.5), (0.2, 0.2), (0.4, 0.1))


@hint_keywords
class Square(Described):
    """Square Attack (Andriushchenko et al., 2020): random squares, kept where the margin falls.

    `x_adv = Square(model, eps=8 / 255)(x, y)`. It needs no gradient, so it also shows where a
    gradient misleads. An image that is fooled leaves the batch at once. What is drawn for an image
    depends on its pixels and `seed` alone.

    Differences from the paper's program: a square may lie anywhere in the image, and one that
    would change nothing takes the opposite signs.

    Args:
        model: any classifier of images in [lower, upper], a module (attacked in eval mode) or a
            function from images to logits, which needs no gradient.
        eps: radius of the ball around x: a number, or a tensor [N].
        queries: passes at perturbed images, for each image at most.
        norm: "linf", "l2" or "l1" (the form of Croce and Hein, 2021).
        p_init: share of the pixels in the first squares; it falls with the paper's schedule.
        seed: of the random numbers.
        targeted: y are the classes to reach, not the true ones.
        screen: give up on an image once it looks hopeless: after 5, 10, 20 and 40% of the
            queries its lowest margin is still above 0.7, 0.5, 0.2 and 0.1 of that at x.
        lower, upper: the range of valid pixels.
        rescale: whether the schedule, which is made for 10,000 queries, is scaled to `queries`.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        queries: int = 5000,
        norm: Norm = "linf",
        p_init: float = 0.8,
        seed: int = 0,
        targeted: bool = False,
        screen: bool = False,
        lower: float = 0.0,
        upper: float = 1.0,
        rescale: bool = True,
    ) -> None:
        require_one_of("Square: norm", norm, PROPOSALS)
        require_radius("eps", eps)
        if not require_positive("Square: p_init", p_init) <= 1:
            raise InputError(f"Square: p_init must lie in 0..1, got {p_init}.")
        if not require_number("Square: lower", lower) < require_number("Square: upper", upper):
            raise InputError(f"Square: lower must be below upper, got {lower} and {upper}.")
        self.model = as_module("Square", model)
        self.eps = eps
        self.queries = require_count("Square: queries", queries)
        self.norm: Norm = norm
        self.p_init = p_init
        self.seed = require_seed("Square: seed", seed)
        self.targeted = targeted
        self.screen = screen
        self.rescale = rescale
        self.lower, self.upper = lower, upper

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, C, H, W] in [lower, upper], on the model's device.
            y: true classes [N]; targets if `targeted`.

        Returns:
            x_adv, like x: the image that fools the model, else the one with the lowest margin; x
            where the model is wrong already.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; the logits at x are
                not finite.
        """
        y = require_batch(
            "Square", self.model, x, y, self.targeted, self.lower, self.upper, gradient=False
        )
        if x.dim() != 4:
            raise InputError(f"Square: x must be images [N, C, H, W], got shape {list(x.shape)}.")
        if x.numel() == 0:
            return x.detach().clone()
        with eval_mode(self.model), own_autograd(x.device.type), torch.no_grad():
            x_adv = x.clone()  # here, as the caller may be under inference_mode
            logits = self.model(x.clone())  # a network may write into its images
            require_finite_logits("Square", logits)
            left = (~is_fooled(logits, y, self.targeted)).nonzero().squeeze(1)
            if len(left) > 0:
                x_adv[left] = self._search(x_adv[left], y[left], logits[left], left)
        return x_adv

    def _search(self, x: Tensor, y: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Images x [N, ...] that the model gets right, with their logits -> x_adv."""
        network = freeze(fold(self.model, "logits", x), x)
        eps, seeds = rows_of(self.eps, images), image_seeds(x, self.seed, "Square")
        scheduled = self.queries if self.rescale else SCHEDULED
        proposals = PROPOSALS[self.norm](
            x, eps, self.lower, self.upper, seeds, scheduled, self.p_init
        )
        limits = {int(at * self.queries): share for at, share in SCREEN} if self.screen else {}
        clean = self._margin(logits, y)
        found, lowest = x.clone(), torch.full_like(clean, torch.inf)
        left = torch.arange(len(x), device=x.device)
        for query in range(self.queries):
            x_adv = proposals.propose(query)
            margin = self._margin(network(x_adv), y)
            better = margin < lowest
            proposals.accept(better)
            lowest = torch.where(better, margin, lowest)
            over = better & (margin < 0)
            if bool(over.any()):
                over = self._confirm(network, x_adv, y, over)
            if query + 1 in limits:
                over = over | (lowest > limits[query + 1] * clean)
            elif not bool(over.any()):
                continue
            found[left[over]] = proposals.best()[over]
            rows = (~over).nonzero().squeeze(1)
            if len(rows) == 0:
                return found
            proposals.keep(rows)
            left, y, lowest, clean = left[rows], y[rows], lowest[rows], clean[rows]
        found[left] = proposals.best()
        return found

    def _margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Logits [N, C] -> [N], negative once the attack has succeeded."""
        column = y[:, None]
        others = logits.scatter(1, column, -torch.inf).amax(dim=1)
        margin = logits.gather(1, column).squeeze(1) - others
        return -margin if self.targeted else margin

    def _confirm(self, network: nn.Module, x_adv: Tensor, y: Tensor, over: Tensor) -> Tensor:
        """Which of the images that fool the cheaper network fool the model itself, bool [N]."""
        if network is self.model:
            return over
        rows = over.nonzero().squeeze(1)
        over = over.clone()
        over[rows] = is_fooled(self.model(x_adv[rows]), y[rows], self.targeted)
        return over
