"""A network whose features go through torch.compile, beside the network itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .folded import folded_features
from .gap import GapClassifier, OtherFeatures


class CompiledClassifier(OtherFeatures):
    """`model` with compiled `features`. Checkpoints, copies and evaluation of `model` see nothing
    of the compiler."""

    def __init__(self, model: GapClassifier) -> None:
        super().__init__(model)
        self._features = torch.compile(model.features)
        self.folded_features = torch.compile(folded_features)

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self._features(x)
        return features
