"""Making a GapClassifier of another library's network, without hooks and without copying it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

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
        feature map, one after the other. relu: whether a ReLU follows. like: a tensor of the
        module's dtype, on its device, whose second size is C_in."""
        super().__init__()
        self.module = module
        self.linear, self.steps, self.relu = linear, steps, relu
        shape = (1, like.shape[1], 1, 1)
        self.in_channels = like.shape[1]
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
    `get_classifier()`), plain `nn.Sequential` stacks, and any GapClassifier. Whether the wrapped
    network gives the module's own logits is tried on two images with a copy of the module, in eval
    mode. A dropout before the linear layer is left out, in train mode too.

    Args:
        module: the network, in train or eval mode, on any device.
        mean, std: per-channel normalisation [C_in] that the network was trained with. It becomes
            part of the wrapped network, which takes images in [0, 1].
        probe: images [N, C_in, H, W] to try it on, where the network does not run on the default,
            two random images of 64x64 pixels, or makes a feature map of one position of them.

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
    steps = _steps(module, linear)
    kernel = _first_kernel(module)
    relu = _needs_relu(module, linear, steps, _probe(probe, kernel.shape[1]))
    wrapped = WrappedClassifier(module, linear, steps, relu, kernel)
    wrapped.training = module.training
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            getattr(wrapped, name).copy_(_per_channel(name, values, kernel.shape[1]))
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


def _first_kernel(module: nn.Module) -> Tensor:
    """The weight of the first convolution: it knows the channels, the dtype and the device."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            return parameter
    raise InputError(f"{type(module).__name__} has no convolution; {_ADVICE}.")


def _probe(probe: Tensor | None, channels: int) -> Tensor:
    """Images [N, C_in, H, W] in float64 on the CPU; by default random ones."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(2, channels, 64, 64, generator=generator)
    if probe.dim() != 4 or len(probe) == 0:
        raise InputError(f"wrap: probe must be images [N, C, H, W], got {list(probe.shape)}.")
    return probe.to("cpu", torch.float64)


@torch.no_grad()
def _needs_relu(module: nn.Module, linear: str, steps: tuple[str, ...], probe: Tensor) -> bool:
    """Whether averaged features give the module's own logits only after a further ReLU.

    Tried on a copy in float64: the module is not touched, and what the image contributes to the
    logits shows even beside a large bias.

    Raises:
        InputError: they do not give them either way.
    """
    name = type(module).__name__
    try:
        trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
        expected = trial(probe)
    except Exception as error:  # another library's code may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{name} cannot be tried on images of shape {list(probe.shape)} ({reason}); "
            "pass images that it takes as probe=."
        ) from error
    for relu in (False, True):
        if _agree(WrappedClassifier(trial, linear, steps, relu, probe), probe, expected):
            return relu
    raise InputError(
        f"The logits of {name} are not its last linear layer, {linear!r}, applied to the average "
        f"of a feature map, so class activation maps would not explain them; {_ADVICE}."
    )


def _agree(wrapped: WrappedClassifier, probe: Tensor, expected: object) -> bool:
    """Whether wrapped logits equal the module's, beyond the bias that any features would give."""
    try:
        features = wrapped.features(probe)
        logits = wrapped.logits(features)
    except Exception:  # the children do not run one after the other
        return False
    # A map of one position would hide what was done after the average, and explain nothing.
    if features.shape[2:].numel() == 1 or not isinstance(expected, Tensor):
        return False
    if logits.shape != expected.shape:
        return False
    by_image = expected if wrapped.bias is None else expected - wrapped.bias
    error, size = (logits - expected).abs().max(), by_image.abs().max()
    return bool((size > 1e-12 * expected.abs().max()) & (error <= 1e-3 * size))


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
