"""How logits come from a feature map: its layout, the average, perhaps a norm, a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Layout(NamedTuple):
    """Where a network's output has its channels and its positions.

    Attributes:
        kind: "maps" [N, K, h, w], "channels last" [N, h, w, K], or "tokens" [N, prefix + h w, K].
        prefix: tokens before those of the positions.
    """

    kind: str
    prefix: int = 0

    def maps(self, output: Tensor, x: Tensor) -> Tensor:
        """What the network gives for images x [N, C_in, H, W] -> [N, K, h, w]."""
        if self.kind == "maps":
            return output
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)  # [N, K, h * w]
        size = grid(tokens.shape[2], x.shape[2], x.shape[3])
        return tokens.reshape(tokens.shape[0], tokens.shape[1], *size)


def grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of `count` tokens, shaped like an image of H, W where that is possible."""
    rows = max(1, round((count * height / width) ** 0.5))
    while count % rows:
        rows -= 1
    return rows, count // rows


def layouts(output: object, channels: int, prefix: int) -> Iterator[Layout]:
    """The layouts that an output with K channels may have."""
    if isinstance(output, Tensor) and output.dim() == 4:
        if output.shape[1] == channels:
            yield Layout("maps")
        if output.shape[3] == channels:
            yield Layout("channels last")
    if isinstance(output, Tensor) and output.dim() == 3 and output.shape[2] == channels:
        for left_out in sorted({0, prefix}, reverse=True):
            if output.shape[1] > left_out + 1:
                yield Layout("tokens", left_out)


class Head(NamedTuple):
    """What follows the average of a feature map.

    Attributes:
        linear: the name of the classifier, a Linear or a 1x1 convolution; None where the map has a
            channel for each class and its average is the logits.
        norm: the name of the LayerNorm or RMSNorm before it, if there is one.
    """

    linear: str | None
    norm: str | None = None

    def weight(self, module: nn.Module) -> Tensor:
        """W' [C, K] such that maps of A / s(x) are exact; the identity is not made here."""
        assert self.linear is not None
        weight: Tensor = module.get_submodule(self.linear).weight  # type: ignore[assignment]
        weight = weight.flatten(1) if weight.dim() == 4 else weight
        if self.norm is None:
            return weight
        norm = module.get_submodule(self.norm)
        gain: Tensor | None = norm.weight  # type: ignore[assignment]
        if gain is not None:
            weight = weight * gain
        return weight - weight.mean(dim=1, keepdim=True) if centres(norm) else weight

    def bias(self, module: nn.Module) -> Tensor | None:
        """beta [C], what the logits have beside the maps; it does not depend on the image."""
        if self.linear is None:
            return None
        linear = module.get_submodule(self.linear)
        bias: Tensor | None = linear.bias  # type: ignore[assignment]
        shift = getattr(module.get_submodule(self.norm), "bias", None) if self.norm else None
        if shift is None:
            return bias
        moved = F.linear(shift, linear.weight.flatten(1))  # type: ignore[operator]
        return moved if bias is None else bias + moved

    def scale(self, module: nn.Module, features: Tensor) -> Tensor:
        """A [N, K, h, w] -> A / s(x), where s(x) is what the norm divides the average by."""
        if self.norm is None:
            return features
        norm = module.get_submodule(self.norm)
        average = features.mean(dim=(2, 3))
        if average.dtype in (torch.float16, torch.bfloat16):
            average = average.float()
        if centres(norm):
            average = average - average.mean(dim=1, keepdim=True)
        eps = getattr(norm, "eps", None)
        if eps is None:  # as torch's RMSNorm
            eps = torch.finfo(average.dtype).eps
        inverse = torch.rsqrt(average.square().mean(dim=1) + eps)
        return features * inverse[:, None, None, None]


def is_norm(module: nn.Module) -> bool:
    """Whether it is a LayerNorm or an RMSNorm over the channels of an average."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == 1
    return isinstance(module, nn.LayerNorm) or _is_rms(module)


def centres(norm: nn.Module) -> bool:
    """Whether a norm subtracts the mean: LayerNorm does, RMSNorm does not."""
    return not _is_rms(norm)


def _is_rms(module: nn.Module) -> bool:
    name = type(module).__name__.lower()  # timm has RMSNorms of its own
    return isinstance(module, nn.RMSNorm) or ("rmsnorm" in name and hasattr(module, "weight"))
