"""Maps that weight the feature maps by gradients: GradCAM and GradCAM++."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._utils.require import require_one_of
from ..models.gap import GapClassifier
from .base import FeatureMaps, pick
from .cam import class_maps
from .gradients import autograd_on, score_gradients, variable

Variant = Literal["paper", "standard"]


class GradCAM(FeatureMaps):
    """GradCAM (Selvaraju et al., ICCV 2017): sum_k w_k A_k with w_k = (1/u) sum_i d f_c / d A_k,i.

    For a network whose head is an average and a linear layer the gradient is weight[c, k] / u, so
    the maps are those of `CAM`, with its 1/u; they differ where a subclass overrides `logits`.
    Raw: without the ReLU that papers use for pictures. Differentiable to any order.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes, or a class is none of its own.
    """

    def _maps(self, features: Tensor, index: Tensor | None) -> Tensor:
        with autograd_on(features, *self.model.parameters()) as differentiable:
            a = variable(features, differentiable)
            scores = pick(self.model.logits(a), index)  # [N, C']
            maps = [
                torch.einsum("nk,nkhw->nhw", self._channel_weights(grad, a), a)
                for grad in score_gradients(scores, a, differentiable)
            ]
            stacked = torch.stack(maps, dim=1)
            return stacked if differentiable else stacked.detach()

    def _channel_weights(self, grad: Tensor, features: Tensor) -> Tensor:
        """Gradient of the logit by A and A itself, both [N, K, h, w] -> w [N, K]."""
        return grad.mean(dim=(2, 3))


class GradCAMPlusPlus(GradCAM):
    """GradCAM++ in two variants, both raw (no ReLU on the map).

    "paper": (1/u) sum_k ReLU(weight[c, k]) A_k, which the paper's experiments use for networks
    with a global average; the 1/u is that of `CAM`, eq. (1).

    "standard": Chattopadhay et al. (WACV 2018). With g = d f_c / d A_k,i,
    w_k = sum_i alpha_k,i ReLU(g_k,i), where
    alpha_k,i = g^2 / (2 g^2 + sum_j A_k,j g^3) = 1 / (2 + g sum_j A_k,j), and 0 where g = 0.
    That is their closed form for Y = exp(f_c), without the factor exp(f_c) of the whole map, which
    other libraries leave out too. On these networks w_k is
    ReLU(weight) / (2 + weight * mean(A_k)), which has a pole where weight * mean(A_k) = -2.

    Differentiable to any order, except at the kink of the ReLU and at that pole.

    Raises:
        InputError: as for `GradCAM`, or an unknown variant.
    """

    def __init__(self, model: GapClassifier, variant: Variant = "paper") -> None:
        super().__init__(model)
        self.variant = require_one_of("variant", variant, ("paper", "standard"))

    def _maps(self, features: Tensor, index: Tensor | None) -> Tensor:
        if self.variant == "paper":
            return class_maps(features, self.model.weight.relu(), index)
        return super()._maps(features, index)

    def _channel_weights(self, grad: Tensor, features: Tensor) -> Tensor:
        total = features.sum(dim=(2, 3), keepdim=True)  # [N, K, 1, 1]
        # Divided through by g^2: the squares and cubes of small gradients would underflow.
        alpha = torch.where(grad != 0, 1 / (2 + grad * total), 0)
        return (alpha * grad.relu()).sum(dim=(2, 3))
