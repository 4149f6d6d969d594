"""The feature map inside a network of another library, found by trying candidates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.errors import InputError
from .gap import GapClassifier
from .head import Head, Layout, is_norm, layouts
from .trace import Traced, trace

# Between feature map and linear layer: the average, and layers that do nothing in eval mode.
_HEAD_PARTS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Identity)
_ADVICE = (
    "wrap serves classifiers that end in a global average and one linear layer, perhaps with a "
    "LayerNorm or RMSNorm between them; for others use pixel interpreters such as "
    "IntegratedGradients, or subclass fastinterp.models.GapClassifier"
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

    def bind(self, module: nn.Module) -> Steps:
        return self


@dataclass(frozen=True)
class Nested:
    """The feature map of a Sequential's last part, which the other parts prepare the images for."""

    inner: Body

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        parts: Any = module
        for part in parts[:-1]:
            x = part(x)
        return self.inner(parts[-1], x)

    def bind(self, module: nn.Module) -> Nested:
        return Nested(self.inner.bind(module[-1]))  # type: ignore[index]


Body: TypeAlias = "Steps | Traced | Nested"


class FeatureMap(NamedTuple):
    """How a network makes its logits.

    Attributes:
        head: what follows the average of the map.
        layout: where the map's channels are.
        body: what makes the map whose average the head gets.
        channels: C_in of the images.
        classes: C.
    """

    head: Head
    layout: Layout
    body: Body
    channels: int
    classes: int


@torch.no_grad()
def find_map(module: nn.Module, probe: Tensor | None) -> FeatureMap:
    """The feature map whose average gives the module's own logits.

    Candidates are tried on a copy in float64: the module stays as it is, and the part of the logits
    that depends on the image is seen even beside a large bias. The copy's norms and classifier get
    random numbers added, so that norms of equal parameters are told apart.

    Args:
        module: the network, in any mode, on any device.
        probe: images to try it on; None: random ones.

    Raises:
        InputError: no candidate gives the logits, or the module does not run.
    """
    linear = _linear_name(module)
    probes = _probes(probe, first_kernel(module).shape[1], _named_sizes(module))
    trial, images, expected = _tried(module, linear, probes)
    fits = partial(_fit, trial, linear, images, expected)
    for body in _candidates(trial, linear, images, lambda output: fits(output) is not None):
        try:
            found = fits(body(trial, images))
        except Exception:  # the children do not run one after the other
            continue
        if found is not None:
            own, classes = body.bind(module), expected.shape[1]  # type: ignore[attr-defined]
            return FeatureMap(*found, own, images.shape[1], classes)
    nested = _nested(module, trial, images)
    if nested is not None:
        return nested
    raise InputError(_refusal(module, linear))


def _nested(module: nn.Module, trial: nn.Module, images: Tensor) -> FeatureMap | None:
    """The feature map of the last part of nn.Sequential(Normalize, network)."""
    if not isinstance(module, nn.Sequential) or len(module) < 2:
        return None
    assert isinstance(trial, nn.Sequential)
    try:
        found = find_map(module[-1], trial[:-1](images))
    except InputError:
        return None
    last = [name for name, _ in module.named_children()][-1]
    head = Head(*(None if name is None else f"{last}.{name}" for name in found.head))
    return found._replace(head=head, body=Nested(found.body), channels=images.shape[1])


def _refusal(module: nn.Module, linear: str | None) -> str:
    name = type(module).__name__
    for part in module.modules():
        token = getattr(part, "global_pool", None) == "token"
        if token or hasattr(part, "class_token"):
            return (
                f"{name} classifies its class token, which class activation maps do not explain; "
                'build it with global_pool="avg" where it has that option (timm); '
                f"{_ADVICE}."
            )
    if linear is None:
        return f"{name} has no linear classifier at its end; {_ADVICE}."
    return (
        f"In {name} no feature map was found whose average, put through its last linear layer, "
        f"{linear!r}, gives the logits (a hidden layer in the head prevents it, for example), so "
        f"class activation maps would not explain them; {_ADVICE}."
    )


def _linear_name(module: nn.Module) -> str | None:
    """The name of the layer that gives the logits: the last linear one, unless timm says which."""
    if isinstance(module, GapClassifier):
        return ""
    last = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
    if isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1):
        found: str = next(name for name, part in module.named_modules() if part is last)
        return found
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear) and name]
    inside = list(last.modules()) if isinstance(last, nn.Module) else None
    names = [name for name, m in linears if inside is None or any(m is part for part in inside)]
    return names[-1] if names else None


def _steps(module: nn.Module, linear: str | None) -> tuple[str, ...]:
    """What makes the feature map: one method, or the children before the linear layer and the
    average."""
    if isinstance(module, GapClassifier):
        return ("features",)
    if hasattr(module, "forward_features"):  # timm
        return ("forward_features",)
    children = list(module.named_children())
    names = [name for name, _ in children]
    head = len(children) if linear is None else names.index(linear.split(".")[0])
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


def _named_sizes(module: nn.Module) -> list[tuple[int, int]]:
    """Sizes H, W of the images to try: 64x64, and what the network says itself."""
    sizes = [(64, 64)]
    for part in module.modules():
        settings = getattr(part, "default_cfg", None)
        named = settings.get("input_size") if isinstance(settings, Mapping) else None
        size = getattr(part, "image_size", None)  # torchvision's ViT
        if isinstance(getattr(getattr(part, "patch_embed", None), "img_size", None), tuple):
            sizes.append(part.patch_embed.img_size)  # type: ignore[union-attr, arg-type]
        if named is not None:
            sizes.append((named[1], named[2]))
        if isinstance(size, int):
            sizes.append((size, size))
    return list(dict.fromkeys(sizes))


def _probes(probe: Tensor | None, channels: int, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """Images [N, C_in, H, W] in float64 on the CPU; by default random ones, first with the channels
    of the first convolution, then with 3 and 1."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        counts = dict.fromkeys((channels, 3, 1))
        return [
            torch.rand(2, count, *size, generator=generator).to(torch.float64)
            for size in sizes
            for count in counts
        ]
    if probe.dim() != 4 or len(probe) == 0:
        raise InputError(f"wrap: probe must be images [N, C, H, W], got {list(probe.shape)}.")
    return [probe.to("cpu", torch.float64)]


def _tried(
    module: nn.Module, linear: str | None, probes: list[Tensor]
) -> tuple[nn.Module, Tensor, object]:
    """A copy in eval mode, the first images that it runs on, and its logits for them."""
    failed: Exception | None = None
    for images in probes:
        try:
            trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
            _perturb(trial, linear)
            return trial, images, trial(images)
        except Exception as error:  # another library's code may raise anything
            failed = failed or error
    reason = (str(failed) or type(failed).__name__).splitlines()[0].rstrip(".")
    raise InputError(
        f"{type(module).__name__} cannot be tried on images of shape {list(probes[0].shape)} "
        f"({reason}); pass images that it takes as probe=."
    ) from failed


def _perturb(trial: nn.Module, linear: str | None) -> None:
    """Make a copy's norms differ from each other, and its classifier from zero."""
    generator = torch.Generator().manual_seed(1)
    parts = [part for part in trial.modules() if is_norm(part)]
    if linear:
        parts.append(trial.get_submodule(linear))
    for part in parts:
        for parameter in part.parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))


def _candidates(
    trial: nn.Module, linear: str | None, images: Tensor, explains: Callable[[Tensor], bool]
) -> Iterator[Steps | Traced]:
    """What may make the feature map, the simplest first."""
    names = _steps(trial, linear)
    yield Steps(names, relu=False)
    yield Steps(names, relu=True)  # torchvision's DenseNet has one in its forward pass
    traced = trace(trial, images, explains)
    if traced is not None:
        yield traced


def _fit(
    trial: nn.Module, linear: str | None, images: Tensor, expected: object, output: object
) -> tuple[Head, Layout] | None:
    """How the expected logits come from an output of some step; None if they do not."""
    if not isinstance(expected, Tensor) or expected.dim() != 2:
        return None
    for head, weight, bias in _heads(trial, linear, expected.shape[1]):
        prefix = getattr(trial, "num_prefix_tokens", 0)
        for layout in layouts(output, weight.shape[1], prefix):
            features = head.scale(trial, layout.maps(output, images))  # type: ignore[arg-type]
            if _explains(weight, bias, expected, features):
                return head, layout
    return None


def _heads(
    trial: nn.Module, linear: str | None, classes: int
) -> Iterator[tuple[Head, Tensor, Tensor | None]]:
    """What may follow the average, with the weight and the bias that it comes to."""
    classifier: Any = None if linear is None else trial.get_submodule(linear)
    if classifier is not None and not linear:  # a GapClassifier
        yield Head(""), classifier.weight, classifier.bias
        return
    if linear:
        width = classifier.weight.shape[1]
        norms = [
            name
            for name, part in trial.named_modules()
            if is_norm(part) and all(p.numel() == width for p in part.parameters(recurse=False))
        ]
        for norm in (None, *reversed(norms)):
            head = Head(linear, norm)
            yield head, head.weight(trial), head.bias(trial)
    yield Head(None), torch.eye(classes, dtype=torch.float64), None


def _explains(weight: Tensor, bias: Tensor | None, expected: Tensor, features: Tensor) -> bool:
    """Whether averaged features give the expected logits, and not only the bias in them."""
    # A map of one position would hide what was done after the average, and explain nothing.
    if features.shape[2:].numel() == 1:
        return False
    logits = F.linear(features.mean(dim=(2, 3)), weight, bias)
    if logits.shape != expected.shape:
        return False
    by_image = expected if bias is None else expected - bias
    error, size = (logits - expected).abs().max(), by_image.abs().max()
    return bool((size > 1e-12 * expected.abs().max()) & (error <= 1e-3 * size))
