"""Making a GapClassifier of another library's network, without hooks and without copying it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .gap import GapClassifier

# What may stand between the feature map and the linear layer: the average, and what leaves it be.
_HEAD_PARTS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Identity)
_ADVICE = (
    "wrap serves classifiers that end in a global average and one linear layer; for others "
    "subclass fastinterp.models.GapClassifier"
)

PerChannel = Sequence[float] | Tensor | None


class WrappedClassifier(GapClassifier):
    """A network of another library, seen as features and a linear classifier.

    Attributes:
        module: the network itself; its parameters are shared, not copied.
    """

    def __init__(
        self, module: nn.Module, linear: str, steps: tuple[str, ...], relu: bool, like: Tensor
    ) -> None:
        """linear: the classifier's name in `module`. steps: the children or methods that make the
        feature map, one after the other. relu: whether a ReLU follows. like: images as `module`
        takes them [N, C_in, H, W]."""
        super().__init__()
        self.module = module
        self.linear, self.steps, self.relu = linear, steps, relu
        shape = (1, like.shape[1], 1, 1)
        self.register_buffer("mean", like.new_zeros(shape), persistent=False)
        self.register_buffer("std", like.new_ones(shape), persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.module.get_submodule(self.linear).weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.module.get_submodule(self.linear).bias  # type: ignore[return-value]

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> what the network was trained on."""
        return (x - self.mean) / self.std  # type: ignore[operator]

    def features(self, x: Tensor) -> Tensor:
        output = self.normalise(x)
        for step in self.steps:
            output = getattr(self.module, step)(output)
        return F.relu(output) if self.relu else output


def wrap(
    module: nn.Module,
    mean: PerChannel = None,
    std: PerChannel = None,
    *,
    probe: Tensor | None = None,
) -> GapClassifier:
    """Make a GapClassifier of a classifier that ends in a global average and a linear layer.

    Such are torchvision's ResNet, ResNeXt, WideResNet, RegNet, DenseNet, MobileNetV2, ShuffleNetV2,
    MNASNet and EfficientNet, many of timm's networks (those with `forward_features` and a linear
    `get_classifier()`), plain `nn.Sequential` stacks, and any GapClassifier. Whether the wrapped network gives the
    module's own logits is tried on a few images, in eval mode; nothing on the module changes.
    A dropout before the linear layer is left out, in train mode too.

    Args:
        module: the network, in train or eval mode, on any device.
        mean, std: per-channel normalisation [C_in] that the network was trained with. It becomes
            part of the wrapped network, which takes images in [0, 1].
        probe: images [N, C_in, H, W] in [0, 1] to try it on, where the network does not run on the
            default: two random images of 64x64 pixels.

    Returns:
        A network that shares the module's parameters and mode. Its config is None: `save` cannot
        keep it.

    Raises:
        InputError: no linear layer, no feature map whose average gives the logits, a probe that
            the network does not run on, or a mean or std that does not fit its input.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"wrap: module must be a torch.nn.Module, got {type(module).__name__}.")
    linear = _linear_name(module)
    probe = _probe(module, probe)
    with _eval_mode(module), torch.no_grad():
        wrapped = _matching(module, linear, probe)
    wrapped.training = module.training
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            getattr(wrapped, name).copy_(_per_channel(name, values, probe.shape[1]))
    return wrapped


def _linear_name(module: nn.Module) -> str:
    """The name of the linear layer that gives the logits: the last one, unless timm says which."""
    if isinstance(module, GapClassifier):
        return ""
    last = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear) and name]
    names = [name for name, m in linears if last is None or m is last]
    if not names:
        raise InputError(f"{type(module).__name__} has no linear classifier at its end; {_ADVICE}.")
    return str(names[-1])


def _probe(module: nn.Module, probe: Tensor | None) -> Tensor:
    """Images [N, C_in, H, W] on the module's device, in its dtype; by default random ones."""
    kernel = next((p for p in module.parameters() if p.dim() == 4), None)
    if kernel is None:
        raise InputError(f"{type(module).__name__} has no convolution; {_ADVICE}.")
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(2, kernel.shape[1], 64, 64, generator=generator)
    if probe.dim() != 4 or len(probe) == 0:
        raise InputError(f"wrap: probe must be images [N, C, H, W], got {list(probe.shape)}.")
    return probe.to(device=kernel.device, dtype=kernel.dtype)


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards each part is in the mode it was in."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def _matching(module: nn.Module, linear: str, probe: Tensor) -> WrappedClassifier:
    """The first way to make feature maps whose average gives the module's own logits."""
    name = type(module).__name__
    try:
        expected = module(probe)
    except Exception as error:  # somebody else's code may raise anything
        raise InputError(
            f"{name} does not run on images of shape {list(probe.shape)} "
            f"({str(error).splitlines()[0]}); pass images that it takes as probe=."
        ) from error
    steps = _steps(module, linear)
    for relu in (False, True):
        wrapped = WrappedClassifier(module, linear, steps, relu, probe)
        if _agree(wrapped, probe, expected):
            return wrapped
    raise InputError(
        f"The logits of {name} are not the linear layer {linear!r} of its averaged feature map, so "
        f"class activation maps would not explain it; {_ADVICE}."
    )


def _steps(module: nn.Module, linear: str) -> tuple[str, ...]:
    """What makes the feature map: a method that does, or the children before the linear layer,
    in order, without those that average or pass on."""
    if isinstance(module, GapClassifier):
        return ("features",)
    if hasattr(module, "forward_features"):  # timm
        return ("forward_features",)
    children = list(module.named_children())
    head = [name for name, _ in children].index(linear.split(".")[0])
    body = children[:head]
    while body and isinstance(body[-1][1], _HEAD_PARTS):
        body.pop()
    return tuple(name for name, _ in body)


def _agree(wrapped: WrappedClassifier, probe: Tensor, expected: object) -> bool:
    """Whether wrapped logits equal the module's, as far as rounding lets one see."""
    try:
        features = wrapped.features(probe)
        logits = wrapped.logits(features)
    except Exception:  # the children do not run one after the other
        return False
    if not isinstance(expected, Tensor) or features.dim() != 4 or logits.shape != expected.shape:
        return False
    # Against what the image contributes: beside a large bias any features would seem right.
    contribution = expected if wrapped.bias is None else expected - wrapped.bias
    size = contribution.abs().max()
    visible = size > 1e3 * torch.finfo(expected.dtype).eps * (expected - contribution).abs().max()
    tolerance = 1e-3 if torch.finfo(expected.dtype).eps < 1e-6 else 5e-2
    return bool(visible & ((logits - expected).abs().max() <= tolerance * size))


def _per_channel(name: str, values: Sequence[float] | Tensor, channels: int) -> Tensor:
    """mean or std as [1, C_in, 1, 1]."""
    tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    if tensor.numel() != channels or not bool(tensor.isfinite().all()):
        raise InputError(
            f"wrap: {name} must be {channels} numbers, one for each input channel, got {values}."
        )
    if name == "std" and not bool((tensor > 0).all()):
        raise InputError(f"wrap: std must be above 0, got {values}.")
    return tensor.view(1, channels, 1, 1)
