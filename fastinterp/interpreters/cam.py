"""Class activation maps (Zhou et al., CVPR 2016), eq. (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from .._utils.described import Described
from ..models.gap import GapClassifier, require_fit, require_gap
from .base import Classes, class_index


def class_maps(features: Tensor, weight: Tensor, index: Tensor | None) -> Tensor:
    """(1/u) sum_k weight[c, k] A[n, k] of the wanted classes only.

    Args:
        features: A [N, K, h, w].
        weight: [C, K].
        index: ids from `class_index`: None, [C'] or [N, C'].

    Returns:
        Maps [N, C', h, w].
    """
    if index is None:
        return ops.cam(features, weight)
    if index.dim() == 1:
        return ops.cam(features, weight[index])
    height, width = features.shape[2:]
    maps = torch.bmm(weight[index], features.flatten(2)) / (height * width)  # [N, C', u]
    return maps.view(*maps.shape[:2], height, width)


class CAM(Described):
    """Class activation maps, eq. (1), with the 1/u: the sum of a map is the logit without bias.

    Complete: sum_i L(x, c)_i = f_c(x) - bias_c. Differentiable to any order that the network is.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes, or a class is none of its own.
    """

    def __init__(self, model: GapClassifier) -> None:
        require_gap("CAM", model)
        self.model = model

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> maps [N, C', h, w]; `classes` as in `Classes`."""
        require_fit("CAM", self.model, x)
        return self.from_features(self.model.features(x), classes)

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', h, w].

        With `validate=False` the values of a tensor of classes are not checked (on a GPU the check
        waits for the device).
        """
        index = class_index(
            classes, len(features), self.model.num_classes, features.device, validate=validate
        )
        return class_maps(features, self.model.weight, index)
