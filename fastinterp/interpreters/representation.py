"""The internal representation itself, "Repr" in the paper."""

from __future__ import annotations

from torch import Tensor

from .._utils.described import Described
from ..models.gap import GapClassifier, require_fit, require_gap
from .base import Classes


class Repr(Described):
    """The feature maps A at the penultimate layer, one map a channel: [N, K, h, w].

    A belongs to no class, so `classes` is ignored and the channels stand where other interpreters
    have classes: eq. (3) then averages over the K channels, whichever classes are asked for.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes.
    """

    def __init__(self, model: GapClassifier) -> None:
        require_gap("Repr", model)
        self.model = model

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> A [N, K, h, w]; `classes` is ignored."""
        require_fit("Repr", self.model, x)
        return self.model.features(x)

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """A [N, K, h, w] -> A; `classes` and `validate` are ignored."""
        return features
