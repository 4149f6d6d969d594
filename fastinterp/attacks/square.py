"""Square attack: random search that needs the logits alone (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.keywords import hint_keywords
from .._utils.require import require_count, require_number, require_one_of, require_positive
from ..models.freeze import fold, freeze
from ..ops.pgd_step import Norm
from .checks import as_module, require_batch
from .modes import constant_parameters, eval_mode
from .seeds import image_seeds
from .square_proposals import PROPOSALS, Proposal
from .threats import BALLS, require_radius
from .watch import require_finite_logits

COMPACT_EVERY = 10  # queries; an image that has left costs no more afterwards
# The area of a square falls by half after each of these shares of the queries (paper, section 5).
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
# Share of the queries -> an image gives up if its margin is still above this share of that at x.
SCREEN = {0.05: 0.7, 0.1: 0.5, 0.2: 0.2, 0.4: 0.1}


@hint_keywords
class Square(Described):
    """Square attack on the margin f_y - max_j f_j, until it is negative.

    `x_adv = Square(model, eps=8 / 255)(x, y)`. It computes no gradient, so it also finds what
    gradients hide. Each query changes one square of an image and keeps it if the margin falls.
    Images that are fooled leave the batch. The random numbers of an image depend on its pixels and
    on `seed`, not on its batch.

    Args:
        model: any classifier, a module or a function from images to logits.
        eps: radius of the ball around x, in pixel units: a number or a tensor [N].
        queries: number of forward passes an image may take, at least 1.
        norm: "linf", "l2" or "l1" (the form of Croce and Hein, 2021, for l1).
        p_init: share of the image's area that the first squares have, in (0, 1].
        screen: whether an image gives up early where the search goes badly: after 5, 10, 20 and
            40% of the queries if its margin is above 0.7, 0.5, 0.2 and 0.1 of that at x.
        seed: of the random numbers.
        lower, upper: the range of valid pixels.

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
        screen: bool = False,
        seed: int = 0,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_one_of("Square: norm", norm, BALLS)
        require_radius("eps", eps)
        self.model = as_module("Square", model)
        self.eps = eps
        self.queries = require_count("Square: queries", queries)
        self.norm = norm
        self.p_init = min(require_positive("Square: p_init", p_init), 1.0)
        self.screen = screen
        self.seed = require_count("Square: seed", seed, 0)
        require_number("Square: lower", lower)
        require_number("Square: upper", upper)
        self.lower, self.upper = lower, upper

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, C_in, H, W] in [lower, upper], on the model's device.
            y: true classes [N].

        Returns:
            x_adv, like x: an image that fools the model, or the one with the smallest margin.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; a logit is not finite.
        """
        y = require_batch(
            "Square", self.model, x, y, False, self.lower, self.upper, gradient=False
        )
        found = x.detach().clone()
        if len(x) == 0:
            return found
        with eval_mode(self.model), constant_parameters(self.model), torch.no_grad():
            network = freeze(fold(self.model, "logits", found), found)
            margin = _margin(network, found, y)
            seeds = image_seeds(found, self.seed)
            proposal = PROPOSALS[self.norm](found, self.eps, self.lower, self.upper, seeds)
            rows = torch.arange(len(x), device=x.device)
            search = _Search(rows, y, found.clone(), margin, margin.clone(), proposal)
            self._search(network, search.keep(margin > 0), found)
        return found

    def _search(self, network: nn.Module, search: _Search, found: Tensor) -> None:
        """Write what the search finds into `found` [N, ...]."""
        pixels = found.shape[2] * found.shape[3]
        screens = {math.ceil(at * self.queries): share for at, share in SCREEN.items()}
        for query in range(1, self.queries):
            if len(search.rows) == 0:
                return
            area = self.p_init / 2 ** sum(query > share * self.queries for share in HALVINGS)
            x_new = search.proposal.propose(search.x_best, query, area * pixels)
            margin = _margin(network, x_new, search.y)
            # One that is fooled stays as it is, so that it does not matter when it leaves.
            better = (margin < search.margin) & (search.margin > 0)
            search.take(better | (query == 1), x_new, margin)
            if query % COMPACT_EVERY == 0 or query in screens:
                found[search.rows] = search.x_best
                stays = search.margin > 0
                if self.screen and query in screens:
                    stays &= search.margin <= screens[query] * search.margin_at_x
                search = search.keep(stays)
        found[search.rows] = search.x_best


@dataclass
class _Search:
    """The images that are still in the batch: which ones, and the best found for each."""

    rows: Tensor
    y: Tensor
    x_best: Tensor
    margin: Tensor
    margin_at_x: Tensor
    proposal: Proposal

    def take(self, better: Tensor, x_new: Tensor, margin: Tensor) -> None:
        self.x_best = torch.where(better.view(-1, *[1] * (x_new.dim() - 1)), x_new, self.x_best)
        self.margin = torch.where(better, margin, self.margin)

    def keep(self, stays: Tensor) -> _Search:
        if bool(stays.all()):
            return self
        index = stays.nonzero().squeeze(1)
        rest = {f.name: getattr(self, f.name)[index] for f in fields(self)[:-1]}
        return _Search(**rest, proposal=self.proposal.rows(index))


def _margin(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """f_y - max_{j != y} f_j, [N]."""
    logits = network(x)
    require_finite_logits("Square", logits)
    column = y[:, None]
    others = logits.scatter(1, column, -torch.inf).amax(dim=1)
    margin: Tensor = logits.gather(1, column).squeeze(1) - others
    return margin
