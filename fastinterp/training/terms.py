"""Terms of training losses that no attack climbs: those of MART, FAR and gradient penalties."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attacks import MakeInterpreter, Objective, Outputs
from ..attacks.map_objectives import map_reader, require_same_model
from ..attacks.objectives import Value
from ..interpreters.gradients import twice_differentiable
from ..models.gap import Needs


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
        @torch.enable_grad()  # it takes a gradient even where its caller wants only the value
        def value(at: Outputs) -> Tensor:
            x = at.x if at.x.requires_grad else at.x.detach().requires_grad_()
            with twice_differentiable():
                logits = Outputs(at.model, x, at.precision).logits
            loss = F.cross_entropy(logits, labels, reduction="sum")
            (grad,) = torch.autograd.grad(loss, x, create_graph=True)
            return grad.square().flatten(1).sum(dim=1)

        return value


class MapCorrelation(Objective):
    """(1 - r) / 2 with Pearson's r of the true class's maps at x and x': 0 for equal maps, 1 for
    opposite ones. It is what FAR trains with (Ivankay et al., 2020).

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


def _centred(maps: Tensor) -> Tensor:
    """Maps [N, 1, ...] -> [N, entries], minus their means."""
    flat: Tensor = maps.flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)
