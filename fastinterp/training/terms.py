"""Terms of training losses that no attack climbs: of MART, FAR, R2ET and gradient penalties."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_count
from ..attacks import MakeInterpreter, Objective, Outputs
from ..attacks.map_objectives import map_reader, require_same_model
from ..attacks.objectives import Value
from ..interpreters.gradients import twice_differentiable
from ..models.gap import Needs

STEP = 0.1  # h of R2ET; on digits the ranking holds better than with the program's 0.001


class BoostedCrossEntropy(Objective):
    """-log p_y(x') - log(1 - max_{k != y} p_k(x')), the BCE of MART (Wang et al., 2020)."""

    needs: Needs = "logits"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        column = labels[:, None]

        def value(adv: Outputs) -> Tensor:
            log_p = F.log_softmax(adv.logits, dim=1)
            wrong = log_p.scatter(1, column, -torch.inf)
            likeliest = wrong.argmax(dim=1, keepdim=True)
            # 1 - p_k is the sum of the others, so that no digits are lost where p_k is near 1.
            rest = log_p.scatter(1, likeliest, -torch.inf).logsumexp(dim=1)
            return -log_p.gather(1, column).squeeze(1) - rest

        return value


class DoubtfulKL(Objective):
    """KL(p(x) || p(x')) (1 - p_y(x)), the regulariser of MART."""

    flat_at_x = True
    needs: Needs = "logits"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        log_p = F.log_softmax(clean.logits, dim=1)  # [N, C]
        p = log_p.exp()
        doubt = 1 - p.gather(1, labels[:, None]).squeeze(1)

        def value(adv: Outputs) -> Tensor:
            kl = (p * (log_p - F.log_softmax(adv.logits, dim=1))).sum(dim=1)
            return doubt * kl

        return value


class InputGradient(Objective):
    """|| grad_x CE ||_2^2 at the images of a pass (Ross and Doshi-Velez, 2018).

    Its gradient goes through the gradient, so the network is differentiated twice.
    """

    needs: Needs = "logits"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        def value(at: Outputs) -> Tensor:
            return _loss_gradient(at, labels).square().flatten(1).sum(dim=1)

        return value


class MapCorrelation(Objective):
    """(1 - r) / 2 with Pearson's r of the true class's maps at x and x': 0 for equal maps, 1 for
    opposite ones. FAR trains with it (Ivankay et al., 2020). The form is that of a later program of
    its authors, for text, which has the cosine for r; see docs/concepts.md.

    Args:
        make_interpreter: the model -> its interpreter, with a map for each class.
    """

    flat_at_x = True

    def __init__(self, make_interpreter: MakeInterpreter) -> None:
        self.make_interpreter = make_interpreter

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        interpreter = self.make_interpreter(clean.model)
        require_same_model("MapCorrelation", clean.model, interpreter)
        read = map_reader(interpreter, labels[:, None])
        centred = _centred(read(clean))

        def value(adv: Outputs) -> Tensor:
            return 0.5 * (1 - F.cosine_similarity(centred, _centred(read(adv)), dim=1, eps=1e-12))

        return value


class RankingPenalty(Objective):
    """R2ET's regulariser (Chen et al., 2024): || H || - (s_1 + .. + s_k - s_{k+1} - .. - s_2k).

    s are the absolute values of a map M, summed over channels, the largest first. Where the k
    largest exceed the next k by much and M changes little around x, the k largest positions of the
    map stay the same. || H || is || M(x + h z) - M(x) || / h, where z is the unit vector along the
    sign of the gradient of the cross-entropy.

    The authors' program (github.com/ccha005/R2ET) compares s_1, .., s_{k-1} and s_{k+1}, .., s_2k
    with s_k, which is the same sum, and takes one norm over the batch where this one is of each
    image. Its step from x to the point beside it is shorter, too short for float32.

    Args:
        make_interpreter: the model -> its interpreter, whose map of the true class is M; None: M is
            the gradient of the cross-entropy by x, as in that program.
        k: how many positions; None takes a tenth of the map's.
    """

    def __init__(
        self, make_interpreter: MakeInterpreter | None = None, k: int | None = None
    ) -> None:
        self.make_interpreter = make_interpreter
        self.k = None if k is None else require_count("RankingPenalty: k", k)
        self.needs = "logits" if make_interpreter is None else "features"

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        read: Value = partial(_loss_gradient, labels=labels)
        if self.make_interpreter is not None:
            interpreter = self.make_interpreter(clean.model)
            require_same_model("RankingPenalty", clean.model, interpreter)
            read = map_reader(interpreter, labels[:, None])

        def value(at: Outputs) -> Tensor:
            if at.precision == "bf16":  # too coarse for differences of maps
                at = Outputs(at.model, at.x)
            maps = read(at)
            grad = maps if self.make_interpreter is None else _loss_gradient(at, labels)
            z = F.normalize(grad.detach().sign().flatten(1), dim=1).view_as(at.x)
            beside = read(Outputs(at.model, at.x + STEP * z))
            change: Tensor = torch.linalg.vector_norm((beside - maps).flatten(1), dim=1) / STEP
            return change - self._gap(maps)

        return value

    def _gap(self, maps: Tensor) -> Tensor:
        """By how much the k largest positions exceed the next k: [N]."""
        sizes = maps.abs()
        if sizes.dim() > 3:
            sizes = sizes.sum(dim=-3)  # over channels; of a map without them, over its one class
        sizes = sizes.flatten(1)
        positions = sizes.shape[1]
        k = max(1, positions // 10) if self.k is None else self.k
        if 2 * k > positions:
            raise InputError(
                f"R2ET compares the {k} largest positions of a map with the next {k}, and this map "
                f"has {positions}; take a smaller k, larger images or another interpreter."
            )
        largest = sizes.topk(2 * k, dim=1).values
        return largest[:, :k].sum(dim=1) - largest[:, k:].sum(dim=1)


@torch.enable_grad()  # it takes a gradient even where its caller wants only a value
def _loss_gradient(at: Outputs, labels: Tensor) -> Tensor:
    """The gradient of each image's cross-entropy by the image, with its graph."""
    x = at.x if at.x.requires_grad else at.x.detach().requires_grad_()
    with twice_differentiable():
        logits = Outputs(at.model, x, at.precision).logits
    loss = F.cross_entropy(logits, labels, reduction="sum")
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    return grad


def _centred(maps: Tensor) -> Tensor:
    """Maps [N, 1, ...] -> [N, entries], minus their means."""
    flat: Tensor = maps.flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)
