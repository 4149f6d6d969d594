"""The feature map inside a network of another library, found by trying candidates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.errors import InputError
from .gap import GapClassifier
from .trace import Traced, trace

# Between feature map and linear layer: the average, and layers that do nothing in eval mode.
_HEAD_PARTS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Identity)
_ADVICE = (
    "wrap serves classifiers that end in a global average and one linear layer; for others "
    "subclass fastinterp.models.GapClassifier"
)


@dataclass(frozen=True)
class Steps:
    """Children or methods of a network that make its feature map, one after the other.

    Attributes:
        names: their names, in order.
        relu: whether a ReLU follows.
    """

    names: tuple[str, ...]
    relu: bool

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(module, name)(x)
        return F.relu(x) if self.relu else x


class FeatureMap(NamedTuple):
    """How a network makes its logits.

    Attributes:
        linear: the name of the classifier, a submodule.
        body: what makes the map whose average the classifier gets.
        channels: C_in of the images.
    """

    linear: str
    body: Steps | Traced
    channels: int


@torch.no_grad()
def find_map(module: nn.Module, probe: Tensor | None) -> FeatureMap:
    """The feature map whose average gives the module's own logits.

    Candidates are tried on a copy in float64: the module stays as it is, and the part of the logits
    that depends on the image is seen even beside a large bias.

    Args:
        module: the network, in any mode, on any device.
        probe: images to try it on; None: random ones.

    Raises:
        InputError: no candidate gives the logits, or the module does not run.
    """
    name, linear = type(module).__name__, _linear_name(module)
    trial, images, expected = _tried(module, _probes(probe, first_kernel(module).shape[1]))
    classifier: Any = trial.get_submodule(linear)
    explains = partial(_explains, classifier.weight, classifier.bias, expected)
    for body in _candidates(trial, linear, images, explains):
        try:
            features = body(trial, images)
        except Exception:  # the children do not run one after the other
            continue
        if explains(features):
            own = body.bind(module) if isinstance(body, Traced) else body
            return FeatureMap(linear, own, images.shape[1])
    raise InputError(
        f"In {name} no feature map was found whose average, put through its last linear layer, "
        f"{linear!r}, gives the logits, so class activation maps would not explain them; {_ADVICE}."
    )


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
    """What makes the feature map: one method, or the children before the linear layer and the
    average."""
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


def first_kernel(module: nn.Module) -> Tensor:
    """The weight of the first convolution, with the dtype, the device and mostly the channels of
    the images."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            return parameter
    raise InputError(f"{type(module).__name__} has no convolution; {_ADVICE}.")


def _probes(probe: Tensor | None, channels: int) -> list[Tensor]:
    """Images [N, C_in, H, W] in float64 on the CPU; by default random ones, first with the channels
    of the first convolution, then with 3 and 1."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        counts = dict.fromkeys((channels, 3, 1))
        return [
            torch.rand(2, count, 64, 64, generator=generator).to(torch.float64) for count in counts
        ]
    if probe.dim() != 4 or len(probe) == 0:
        raise InputError(f"wrap: probe must be images [N, C, H, W], got {list(probe.shape)}.")
    return [probe.to("cpu", torch.float64)]


def _tried(module: nn.Module, probes: list[Tensor]) -> tuple[nn.Module, Tensor, object]:
    """A copy in eval mode, the first images that it runs on, and its logits for them."""
    failed: Exception | None = None
    for images in probes:
        try:
            trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
            return trial, images, trial(images)
        except Exception as error:  # another library's code may raise anything
            failed = failed or error
    reason = (str(failed) or type(failed).__name__).splitlines()[0].rstrip(".")
    raise InputError(
        f"{type(module).__name__} cannot be tried on images of shape {list(probes[0].shape)} "
        f"({reason}); pass images that it takes as probe=."
    ) from failed


def _candidates(
    trial: nn.Module, linear: str, images: Tensor, explains: Callable[[Tensor], bool]
) -> Iterator[Steps | Traced]:
    """What may make the feature map, the simplest first."""
    names = _steps(trial, linear)
    yield Steps(names, relu=False)
    yield Steps(names, relu=True)  # torchvision's DenseNet has one in its forward pass
    traced = trace(trial, images, explains)
    if traced is not None:
        yield traced


def _explains(weight: Tensor, bias: Tensor | None, expected: object, features: Tensor) -> bool:
    """Whether averaged features give the expected logits, and not only the bias in them."""
    # A map of one position would hide what was done after the average, and explain nothing.
    if features.dim() != 4 or features.shape[2:].numel() == 1 or not isinstance(expected, Tensor):
        return False
    if features.shape[1] != weight.shape[1]:
        return False
    logits = F.linear(features.mean(dim=(2, 3)), weight, bias)
    if logits.shape != expected.shape:
        return False
    by_image = expected if bias is None else expected - bias
    error, size = (logits - expected).abs().max(), by_image.abs().max()
    return bool((size > 1e-12 * expected.abs().max()) & (error <= 1e-3 * size))
