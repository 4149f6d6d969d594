"""Class activation maps (Zhou et al., CVPR 2016), eq. (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from .base import FeatureMaps


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


class CAM(FeatureMaps):
    """Class activation maps, eq. (1), with the 1/u: the sum of a map is the logit without bias.

    Complete: sum_i L(x, c)_i = f_c(x) - bias_c. Differentiable to any order that the network is.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes, or a class is none of its own.
    """

    def _maps(self, features: Tensor, index: Tensor | None) -> Tensor:
        return class_maps(features, self.model.weight, index)
