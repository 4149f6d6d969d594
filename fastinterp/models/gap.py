"""The one shape of network that fastinterp explains: features, global average, linear layer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.errors import InputError
from .._utils.require import require_floating

# What is read of a pass beside the logits; see `fastinterp.models.freeze.fold`.
Needs = Literal["logits", "sums", "maps", "features"]


def widest(needs: Iterable[Needs]) -> Needs:
    """What covers all of some needs; for none of them "logits"."""
    found = set(needs)
    if {"sums", "maps"} <= found:
        return "features"  # only A itself gives both
    return max(found, key=get_args(Needs).index, default="logits")


class GapClassifier(nn.Module):
    """Images -> feature maps A -> mean over positions -> linear classifier.

    A subclass implements `features` and sets `weight` and `bias`, parameters or properties. The
    class activation map of class c is then `weight[c]` applied to A, and its mean over positions is
    the logit without the bias (Zhou et al., 2016; eq. 1 of the paper divides the map by u).

    Attributes:
        weight: [C, K], the linear classifier.
        bias: [C] or None.
        config: how to build this network again, for checkpoints; None where unknown.
        in_channels: C_in of the images that it takes; None where unknown.
    """

    weight: Tensor
    bias: Tensor | None
    config: dict[str, Any] | None = None
    in_channels: int | None = None

    def features(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> feature maps A [N, K, h, w]."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Feature maps A [N, K, h, w] -> logits [N, C].

        Raises:
            InputError: the features are no maps.
        """
        if features.dim() != 4:
            raise InputError(
                f"{type(self).__name__}.features must give maps [N, K, h, w], not yet averaged, "
                f"got shape {list(features.shape)}."
            )
        return F.linear(features.mean(dim=(2, 3)), self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> logits [N, C].

        Raises:
            InputError: x is no batch of such images, or not of the network's dtype and device.
        """
        require_fit(type(self).__name__, self, x)
        return self.logits(self.features(x))

    @property
    def num_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.weight.device


class OtherFeatures(GapClassifier):
    """`model` with its features computed in another way; all else is its own.

    Attributes:
        model: the network, whose parameters and modes these are.
    """

    def __init__(self, model: GapClassifier) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.model.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.model.bias

    def logits(self, features: Tensor) -> Tensor:
        return self.model.logits(features)


WITHOUT_MAPS = "IntegratedGradients, Gradient, SmoothGrad, GuidedBackprop or RISE"


def require_gap(who: str, model: object) -> None:
    """Raise unless the model is a GapClassifier."""
    if isinstance(model, GapClassifier):
        return
    _require_bare(who, model, "a GapClassifier")
    raise InputError(
        f"{who} needs a GapClassifier, got {type(model).__name__}; make one of it with "
        f"fastinterp.models.wrap, or take {WITHOUT_MAPS}, which explain any network."
    )


def require_network(who: str, model: object) -> None:
    """Raise unless the model is a module, and none that only runs another one."""
    if isinstance(model, GapClassifier):
        return
    _require_bare(who, model, "the network itself")
    if not isinstance(model, nn.Module):
        raise InputError(f"{who} needs a torch.nn.Module, got {type(model).__name__}.")


def _require_bare(who: str, model: object, needed: str) -> None:
    """Raise if the model is inside torch.compile or a module that shares out its batches."""
    parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    if not parallel and not hasattr(model, "_orig_mod"):
        return
    shown = ""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        shown = " (docs/concepts.md, Several processes, shows how)"
    raise InputError(
        f"{who} needs {needed}, got {type(model).__name__}; pass the network inside, without "
        f"torch.compile or DistributedDataParallel{shown}."
    )


def device_of(model: nn.Module, x: Tensor) -> torch.device:
    """Where the network's parameters are; of one without any, where the images x are."""
    if isinstance(model, GapClassifier):
        return model.device
    return next(chain(model.parameters(), model.buffers()), x).device


def require_fit(who: str, model: nn.Module, x: object, *, autocast: bool = True) -> None:
    """Raise unless x is a batch of images that the network takes.

    No value is read: a GPU is not waited for, compilers and CUDA graphs see nothing of it. Of a
    network that is no GapClassifier only the device is known.

    Args:
        autocast: let another dtype pass under autocast, which converts it.
    """
    x = require_floating(who, "x", x)
    if not isinstance(model, GapClassifier):
        if x.dim() < 2:
            raise InputError(f"{who}: x must be a batch [N, ...], got shape {list(x.shape)}.")
        _require_device(who, device_of(model, x), x)
        return
    if x.dim() != 4 or (model.in_channels or x.shape[1]) != x.shape[1]:
        alone = "; one image is a batch as x[None]" if x.dim() == 3 else ""
        raise InputError(
            f"{who}: x must be images [N, {model.in_channels or 'C'}, H, W], "
            f"got shape {list(x.shape)}{alone}."
        )
    weight = model.weight
    _require_device(who, weight.device, x)
    if x.dtype != weight.dtype and not (autocast and torch.is_autocast_enabled(x.device.type)):
        raise InputError(
            f"{who}: the model and x must have the same dtype, got {weight.dtype} and {x.dtype}; "
            "convert one of them with .to."
        )


def _require_device(who: str, device: torch.device, x: Tensor) -> None:
    if x.device != device:
        raise InputError(
            f"{who}: the model and x must be on the same device, got {device} and {x.device}."
        )
