"""A model's features and logits for one batch, each computed once, when first read."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..models.gap import GapClassifier, require_gap

Precision = Literal["float32", "tf32", "bf16"]


class Outputs:
    """One forward pass of `model` at images `x` [N, ...].

    The terms of an objective (cross-entropy plus a discrepancy, say) share one pass this way, and a
    trainer gives the pass that it made for its own loss to the inner loop.

    Attributes:
        model: any classifier; `features`, `weight` and `bias` need a GapClassifier.
        x: the images.
        precision: "bf16" runs the forward and backward pass in bfloat16, in the layers for which
            autocast does so. Features and logits have x's type all the same, and the logits of a
            GapClassifier are computed in that type. "tf32" is float32 here; `convolutions_in`
            makes the difference.
        images: number of images of the whole batch, of which x may be a process's share; None: N.
    """

    __slots__ = ("_detached", "_features", "_logits", "images", "model", "precision", "x")

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        precision: Precision = "float32",
        images: int | None = None,
    ) -> None:
        self.images = images
        self.model = model
        self.x = x
        self.precision: Precision = precision
        self._features: Tensor | None = None
        self._logits: Tensor | None = None
        self._detached = False

    @property
    def features(self) -> Tensor:
        """Feature maps A [N, K, h, w]."""
        if self._features is None:
            gap = self.gap
            with self._pass():
                features = gap.features(self.x)
            self._features = self._finish(features)
        return self._features

    @property
    def logits(self) -> Tensor:
        """[N, C]."""
        if self._logits is None:
            if isinstance(self.model, GapClassifier):
                logits = self.model.logits(self.features)
            else:
                with self._pass():
                    logits = self.model(self.x)
            self._logits = self._finish(logits)
        return self._logits

    @property
    def weight(self) -> Tensor:
        """The linear classifier [C, K]."""
        weight = self.gap.weight
        return weight.detach() if self._detached else weight

    @property
    def bias(self) -> Tensor | None:
        """The classifier's bias [C], if it has one."""
        bias = self.gap.bias
        return bias.detach() if self._detached and bias is not None else bias

    def detach(self) -> Outputs:
        """The same values as constants: no gradient reaches the model or x through them.

        The classifier is a constant too: the fused discrepancy is cheapest where only x' needs a
        gradient.
        """
        other = Outputs(self.model, self.x.detach(), self.precision, self.images)
        other._features = None if self._features is None else self._features.detach()
        other._logits = None if self._logits is None else self._logits.detach()
        other._detached = True
        return other

    def rows(self, index: Tensor) -> Outputs:
        """The images at `index` [M], with what was already computed for them."""
        other = Outputs(self.model, self.x[index], self.precision, self.images)
        other._features = None if self._features is None else self._features[index]
        other._logits = None if self._logits is None else self._logits[index]
        other._detached = self._detached
        return other

    @property
    def gap(self) -> GapClassifier:
        """The model, if it has feature maps and a linear classifier."""
        require_gap("This objective reads feature maps and", self.model)
        assert isinstance(self.model, GapClassifier)
        return self.model

    def _pass(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16":
            return nullcontext()
        # Without its cache: cached casts would be lost between two replays of a CUDA graph.
        return torch.autocast(self.x.device.type, torch.bfloat16, cache_enabled=False)

    def _finish(self, result: Tensor) -> Tensor:
        result = result.detach() if self._detached else result
        return result.to(self.x.dtype) if self.precision == "bf16" else result
