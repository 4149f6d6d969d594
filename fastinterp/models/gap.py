"""The one shape of network that fastinterp explains: features, global average, linear layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Keeps = Literal["logits", "maps", "features"]  # each keeps what stands before it


def widest(keeps: Iterable[Keeps]) -> Keeps:
    """The one that keeps all that the others do; of none of them, "logits"."""
    return max(keeps, key=get_args(Keeps).index, default="logits")


def folded_for(model: nn.Module, keeps: Keeps, x: Tensor) -> nn.Module:
    """The shortest network for images like x that keeps so much; a model of another kind itself."""
    if not isinstance(model, GapClassifier) or x.dim() != 4:
        return model
    return model.folded(keeps, (x.shape[2], x.shape[3]))


class GapClassifier(nn.Module):
    """Images -> feature maps A -> mean over positions -> linear classifier.

    A subclass implements `features`. The class activation map of class c is then exactly
    `weight[c]` applied to A, and its mean is the logit (Zhou et al., 2016; eq. 1 of the paper).

    Attributes:
        weight: [C, K], the linear classifier.
        bias: [C] or None.
        config: how to build this network again, kept in checkpoints; None where unknown.
    """

    weight: Tensor
    bias: Tensor | None
    config: dict[str, Any] | None = None

    def features(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> feature maps A [N, K, h, w]."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Feature maps A [N, K, h, w] -> logits [N, C]."""
        return F.linear(features.mean(dim=(2, 3)), self.weight, self.bias)

    def folded(self, keeps: Keeps, image_size: tuple[int, int]) -> GapClassifier:
        """A network with the same logits for less work, or this one where there is none.

        Where the last layers are linear in what lies below them, so are logits and class maps, and
        the classifier can be multiplied into those layers beforehand. Gradients reach the
        parameters through the folded network, which holds their present values: fold again after
        they have changed. A subclass that knows a shorter way overrides this.

        Args:
            keeps: what must stay what it is beside the logits. "maps": the class activation maps,
                which are the feature maps of the folded network, whose classifier is the identity.
                "features": A itself, so nothing can be folded. "logits": nothing.
            image_size: H, W of the images that it will see.
        """
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> logits [N, C]."""
        return self.logits(self.features(x))

    @property
    def num_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.weight.device
