"""Maps that weight the feature maps by gradients: GradCAM and GradCAM++."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from .._utils.described import Described
from .._utils.errors import InputError
from ..models.gap import GapClassifier, require_fit, require_gap
from .base import Classes, class_index, pick
from .cam import class_maps
from .gradients import autograd_on, needs_graph, score_gradients, variable

Variant = Literal["paper", "standard"]


class _FeatureGradientMaps(Described, ABC):
    """sum_k w_k A_k, where w_k comes from the gradient of the logit by A."""

    def __init__(self, model: GapClassifier) -> None:
        require_gap(type(self).__name__, model)
        self.model = model

    @abstractmethod
    def _weights(self, grad: Tensor, features: Tensor) -> Tensor:
        """Gradient of the logit by A and A itself, both [N, K, h, w] -> w [N, K]."""

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> maps [N, C', h, w]; `classes` as in `Classes`."""
        require_fit(type(self).__name__, self.model, x)
        return self.from_features(self.model.features(x), classes)

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', h, w]; `validate` as for `CAM`."""
        index = class_index(
            classes, len(features), self.model.num_classes, features.device, validate=validate
        )
        with autograd_on() as grad_mode:
            differentiable = needs_graph(grad_mode, [features, *self.model.parameters()])
            a = variable(features, differentiable)
            scores = pick(self.model.logits(a), index)  # [N, C']
            maps = [
                torch.einsum("nk,nkhw->nhw", self._weights(grad, a), a)
                for grad in score_gradients(scores, a, differentiable)
            ]
            stacked = torch.stack(maps, dim=1)
            return stacked if differentiable else stacked.detach()


class GradCAM(_FeatureGradientMaps):
    """GradCAM (Selvaraju et al., ICCV 2017): w_k = (1/u) sum_i d f_c / d A_k,i.

    For a network whose head is an average and a linear layer the gradient is weight[c, k] / u, so
    the maps are those of `CAM`, with its 1/u; they differ where a subclass overrides `logits`.
    Raw: the ReLU that papers draw pictures with is left out. Differentiable to any order.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes, or a class is none of its own.
    """

    def _weights(self, grad: Tensor, features: Tensor) -> Tensor:
        return grad.mean(dim=(2, 3))


class GradCAMPlusPlus(Described):
    """GradCAM++ in two variants, both raw (no ReLU on the map).

    "paper": (1/u) sum_k ReLU(weight[c, k]) A_k, which is what the paper's experiments used for
    networks with a global average; the 1/u is that of `CAM`, eq. (1).

    "standard": Chattopadhay et al. (WACV 2018). With g = d f_c / d A_k,i,
    w_k = sum_i alpha_k,i ReLU(g_k,i), where
    alpha_k,i = g^2 / (2 g^2 + sum_j A_k,j g^3) = 1 / (2 + g sum_j A_k,j), and 0 where g = 0.
    That is their closed form for Y = exp(f_c); the factor exp(f_c) that it puts before the whole
    map is left out, as the usual programs do. On these networks w_k is
    ReLU(weight) / (2 + weight * mean(A_k)), which has a pole where weight * mean(A_k) = -2.

    Differentiable to any order, except at the kink of the ReLU and at that pole.

    Raises:
        InputError: as for `GradCAM`, or an unknown variant.
    """

    def __init__(self, model: GapClassifier, variant: Variant = "paper") -> None:
        require_gap("GradCAMPlusPlus", model)
        if variant not in ("paper", "standard"):
            raise InputError(
                f'GradCAMPlusPlus: variant must be "paper" or "standard", got {variant!r}.'
            )
        self.model = model
        self.variant = variant
        self._standard = _StandardPlusPlus(model)

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> maps [N, C', h, w]; `classes` as in `Classes`."""
        require_fit(type(self).__name__, self.model, x)
        return self.from_features(self.model.features(x), classes)

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', h, w]; `validate` as for `CAM`."""
        if self.variant == "standard":
            return self._standard.from_features(features, classes, validate=validate)
        index = class_index(
            classes, len(features), self.model.num_classes, features.device, validate=validate
        )
        return class_maps(features, self.model.weight.relu(), index)


class _StandardPlusPlus(_FeatureGradientMaps):
    def _weights(self, grad: Tensor, features: Tensor) -> Tensor:
        total = features.sum(dim=(2, 3), keepdim=True)  # [N, K, 1, 1]
        # Divided through by g^2: the squares and cubes of small gradients would underflow.
        alpha = torch.where(grad != 0, 1 / (2 + grad * total), 0)
        return (alpha * grad.relu()).sum(dim=(2, 3))
