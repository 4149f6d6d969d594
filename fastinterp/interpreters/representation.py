"""The internal representation itself, "Repr" in the paper."""

from __future__ import annotations

from torch import Tensor

from .base import Classes, FeatureMaps


class Repr(FeatureMaps):
    """The feature maps A at the penultimate layer, one map a channel: [N, K, h, w].

    A belongs to no class, so `classes` is ignored and channels replace the classes of other
    interpreters: eq. (3) then averages over the K channels, for any set of classes.

    Raises:
        InputError: the model is no GapClassifier; when called, x is no batch of images that it
            takes.
    """

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """A [N, K, h, w] -> A; `classes` and `validate` are ignored."""
        return features
