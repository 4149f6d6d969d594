"""A network whose features go through torch.compile, beside the network itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .folded import folded_features
from .gap import GapClassifier


class CompiledClassifier(GapClassifier):
    """`model` with compiled `features`.

    It shares the parameters and the modes of `model`, which stays as it is: checkpoints, copies and
    evaluation see nothing of the compiler.
    """

    def __init__(self, model: GapClassifier) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._features = torch.compile(model.features)
        self.folded_features = torch.compile(folded_features)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.model.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.model.bias

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self._features(x)
        return features

    def logits(self, features: Tensor) -> Tensor:
        return self.model.logits(features)
