"""Making a GapClassifier of another library's network, without hooks and without copying it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .feature_map import FeatureMap, find_map, first_kernel
from .gap import GapClassifier

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)

PerChannel = Sequence[float] | Tensor | None


class WrappedClassifier(GapClassifier):
    """A network of another library, seen as features and a linear classifier.

    Attributes:
        module: the network itself; its parameters are shared, not copied.
    """

    def __init__(self, module: nn.Module, found: FeatureMap) -> None:
        super().__init__()
        self.module = module
        self.head, self.layout, self.body = found.head, found.layout, found.body
        self.in_channels = found.channels
        like, shape = first_kernel(module), (1, found.channels, 1, 1)
        self.register_buffer("mean", like.new_zeros(shape), persistent=False)
        self.register_buffer("std", like.new_ones(shape), persistent=False)
        one = torch.eye(found.classes).to(like) if found.head.linear is None else None
        self.register_buffer("identity", one, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        if self.head.linear is None:
            return self.identity  # type: ignore[return-value]
        return self.head.weight(self.module)

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.head.bias(self.module)

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> what the network was trained on."""
        return (x - self.mean) / self.std  # type: ignore[operator]

    def features(self, x: Tensor) -> Tensor:
        output = self.body(self.module, self.normalise(x))
        return self.head.scale(self.module, self.layout.maps(output, x))

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> WrappedClassifier:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.body = self.body.bind(self.module)
        return self


def wrap(
    module: nn.Module,
    mean: PerChannel = None,
    std: PerChannel = None,
    *,
    probe: Tensor | None = None,
) -> GapClassifier:
    """Make a GapClassifier of a classifier that ends in a global average and a linear layer.

    A LayerNorm or RMSNorm may stand between them: features are then A / s(x), where s(x) is what
    the norm divides the image's average by, the norm's gain and centring are part of the weight,
    and its shift is part of the bias. Tokens with mean pooling are laid out as maps, and maps
    [N, h, w, K] turned; a 1x1 convolution may take the linear layer's place.

    Such networks are torchvision's ResNet, ResNeXt, WideResNet, RegNet, DenseNet, MobileNetV2,
    ShuffleNetV2, MNASNet and EfficientNet, many of timm's networks (those with `forward_features`
    and a linear `get_classifier()`), plain `nn.Sequential` stacks, any GapClassifier, and networks
    of your own that torch.fx can trace; also ConvNeXt, Swin, MLP-Mixer, MetaFormer and ViTs built
    with global_pool="avg", SqueezeNet, and nn.Sequential(Normalize, network). `wrap` checks that
    the wrapped network has the module's own logits, on two images with a copy of the module in eval
    mode. A dropout before the linear layer is left out, in train mode too.

    Args:
        module: the network, in train or eval mode, on any device.
        mean, std: per-channel normalisation [C_in] that the network was trained with. It becomes
            part of the wrapped network, which takes images in [0, 1].
        probe: images [N, C_in, H, W] for this check. The default is two random images of 64x64
            pixels; give others if the network does not run on these, or makes feature maps of a
            single position from them.

    Returns:
        A network that shares the module's parameters and mode. Its config is None, so `save`
        keeps its weights alone; `from_source` makes one that `load` can build again.

    Raises:
        InputError: no linear layer, no feature map whose average gives the logits, a probe that
            the network does not run on, or a mean or std that does not fit its input.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"wrap: module must be a torch.nn.Module, got {type(module).__name__}.")
    if hasattr(module, "_orig_mod") or isinstance(module, _PARALLEL):
        raise InputError(
            f"wrap: pass the network inside, without torch.compile or DataParallel, "
            f"got {type(module).__name__}."
        )
    found = find_map(module, probe)
    wrapped = WrappedClassifier(module, found)
    wrapped.training = module.training
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            getattr(wrapped, name).copy_(_per_channel(name, values, found.channels))
    return wrapped


def _per_channel(name: str, values: Sequence[float] | Tensor, channels: int) -> Tensor:
    """mean or std as [1, C_in, 1, 1]."""
    try:
        tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    if tensor.numel() != channels or not bool(tensor.isfinite().all()):
        raise InputError(
            f"wrap: {name} must be {channels} numbers, one for each input channel, got {values}."
        )
    if name == "std" and not bool((tensor > 0).all()):
        raise InputError(f"wrap: std must be above 0, got {values}.")
    return tensor.view(1, channels, 1, 1)
