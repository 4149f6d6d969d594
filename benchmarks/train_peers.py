"""What one Int iteration is measured against: its convolutions alone, and eager programs.

On a GPU the convolutions run as a CUDA graph, like the trainer's steps; the programs do not. They
draw the random start as `IntTrainer` does and make one step of Adam. Floors and
programs run the network as it is written, all its convolutions torch's own, unless they say
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import Thunk
from fastinterp import models
from fastinterp.attacks import Outputs
from fastinterp.models import GapClassifier
from fastinterp.models.folded import FoldedClassifier
from fastinterp.models.freeze import fold, freeze
from fastinterp.models.layers import SameConv2d, pad_same
from fastinterp.training.graphs import WARM_UP, capture
from fastinterp.training.seeds import derive

LR = 1e-4
GAMMA = 0.01


class TorchConv2d(SameConv2d):
    """The same layer with torch's derivatives alone."""

    def forward(self, x: Tensor) -> Tensor:
        x, padding = pad_same(x, self.weight.shape[2], self.stride, 0.0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding)


@dataclass(frozen=True)
class Setting:
    """One training iteration: the network, the batch and the inner loop."""

    network: str = "small"
    batch: int = 50
    channels: int = 1
    size: int = 28
    classes: int = 10
    steps: int = 40
    eps: float = 0.3
    step_size: float = 0.01
    device: str = "cpu"

    @property
    def layout(self) -> torch.memory_format:
        """The trainer's own choice of how images and feature maps lie in memory."""
        return torch.channels_last if self.device == "cpu" else torch.contiguous_format

    def model(self) -> GapClassifier:
        config = {"name": self.network, "in_channels": self.channels, "num_classes": self.classes}
        return models.build(config, seed=0).to(self.device)

    def written(self) -> GapClassifier:
        """The same network without anything of ours in its passes."""
        model = self.model()
        for layer in model.modules():
            if isinstance(layer, SameConv2d):
                layer.__class__ = TorchConv2d
        return model

    def images(self) -> tuple[Tensor, Tensor]:
        """x [batch, channels, size, size] and y [batch], the same at each call."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.batch, self.channels, self.size, self.size, generator=generator)
        y = torch.randint(self.classes, (self.batch,), generator=generator)
        return x.to(self.device), y.to(self.device)


def convolutions_alone(setting: Setting, layout: torch.memory_format) -> Thunk:
    """Nothing but what `model.features` computes, convolutions and ReLUs, in float32.

    As often as an iteration that keeps the clean features must: forward at x, for each inner step
    forward at x' and backward to the image, forward at x' once more, and one backward pass through
    both outer forward passes to the weights. The gradients that enter at the feature maps are
    constants, x' stands still: no class map, loss, step, projection or optimiser. `layout` is that
    of the images, which the convolutions keep.
    """
    model = setting.written()
    convolutions = [p for name, p in model.named_parameters() if name != "weight"]
    return _passes(setting, layout, model, convolutions)


def folded_convolutions_alone(setting: Setting) -> Thunk:
    """The same for the passes that the trainer makes: the classifier is folded in, if it can be,
    the derivative by images of few channels is ours, and so are the inner loop's passes where they
    are one kernel."""
    model = setting.model()
    folded = fold(model, "maps", setting.images()[0])
    if not isinstance(folded, FoldedClassifier):
        convolutions = [p for name, p in model.named_parameters() if name != "weight"]
        return _passes(setting, setting.layout, model, convolutions, as_a_stack=True)
    kernel, bias = (t.detach().requires_grad_() for t in folded.head[:2])
    constant = FoldedClassifier(folded.model, folded.head._replace(kernel=kernel, bias=bias))
    top = f"layers.{len(folded.model.layers) - 1}."
    below = [
        p for name, p in model.named_parameters() if name != "weight" and not name.startswith(top)
    ]
    return _passes(setting, setting.layout, constant, [*below, kernel, bias], as_a_stack=True)


def _passes(
    setting: Setting,
    layout: torch.memory_format,
    model: GapClassifier,
    wanted: Sequence[Tensor],
    as_a_stack: bool = False,
) -> Thunk:
    x = setting.images()[0].to(memory_format=layout)
    x_adv = x.flip(0).to(memory_format=layout).requires_grad_()
    above = torch.ones_like(model.features(x))

    def run() -> tuple[Tensor, ...]:
        clean = model.features(x)
        inner = partial(Outputs, freeze(model, x) if as_a_stack else model)
        for _ in range(setting.steps):
            torch.autograd.grad(inner(x_adv).features, x_adv, above)
        adv = model.features(x_adv.detach())
        return torch.autograd.grad((clean, adv), wanted, (above, above))

    return run if setting.device == "cpu" else _as_graph(run, torch.device(setting.device))


def _as_graph(run: Callable[[], tuple[Tensor, ...]], device: torch.device) -> Thunk:
    """The same passes as a CUDA graph, which gives the same tensors each time."""
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    current.wait_stream(stream)
    graph, results = capture(run, device, stream)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return results

    return replay


InnerValue = Callable[[Tensor], Tensor]  # A' -> D [N]


def release_structure(setting: Setting) -> Thunk:
    """As the authors' program is built: each inner step passes x through the network again, makes
    the maps of both images, and differentiates the literal formula.

    The pass at x keeps no graph, which favours this peer.
    """

    def inner_value(model: GapClassifier, x: Tensor, y: Tensor, clean: Tensor) -> InnerValue:
        def value(adv: Tensor) -> Tensor:
            with torch.no_grad():
                again = model.features(x)
            return literal_discrepancy(model, again, adv, y)

        return value

    return _eager_iteration(setting, inner_value)


def clean_kept(setting: Setting) -> Thunk:
    """Eager torch with the clean maps computed once and shared by the outer loss."""

    def inner_value(model: GapClassifier, x: Tensor, y: Tensor, clean: Tensor) -> InnerValue:
        features, weight = clean.detach(), model.weight.detach()
        maps_clean = maps(weight, features)
        return lambda adv: discrepancy_of_maps(
            maps_clean, maps(weight, adv), mean_logits(adv, weight), y
        )

    return _eager_iteration(setting, inner_value)


def _eager_iteration(setting: Setting, inner_value: Callable[..., InnerValue]) -> Thunk:
    model = setting.written()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    x, y = setting.images()
    generator = torch.Generator(device=setting.device)
    done = 0

    def run() -> Tensor:
        nonlocal done
        clean = model.features(x)
        value = inner_value(model, x, y, clean)
        generator.manual_seed(derive(0, "start", done))
        noise = torch.rand(x.shape, generator=generator, device=x.device).mul_(2).sub_(1)
        x_adv = (x + setting.eps * noise).clamp_(0, 1)
        for _ in range(setting.steps):
            x_adv.requires_grad_()
            (grad,) = torch.autograd.grad(value(model.features(x_adv)).sum(), x_adv)
            moved = x_adv.detach() + setting.step_size * grad.sign()
            inside = torch.minimum(torch.maximum(moved, x - setting.eps), x + setting.eps)
            x_adv = inside.clamp(0, 1)
        distance = literal_discrepancy(model, clean, model.features(x_adv), y)
        cross_entropy = F.cross_entropy(model.logits(clean), y)
        loss = cross_entropy + GAMMA * distance.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        return loss.detach()

    return run


def maps(weight: Tensor, features: Tensor) -> Tensor:
    """[C, K] and [N, K, h, w] -> maps without the 1/u of eq. (1), [N, C, h*w]."""
    return torch.matmul(weight, features.flatten(2))


def mean_logits(features: Tensor, weight: Tensor) -> Tensor:
    return F.linear(features.mean(dim=(2, 3)), weight)


def discrepancy_of_maps(clean: Tensor, adv: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """Eq. (8) in the release's units: maps [N, C, u] at x and x', logits [N, C] at x' -> [N]."""
    by_class = (clean - adv).abs().sum(dim=2)  # [N, C]
    true = F.one_hot(y, logits.shape[1]).bool()
    others = torch.softmax(logits.masked_fill(true, -torch.inf), dim=1)
    return by_class.gather(1, y[:, None]).squeeze(1) + (others * by_class).sum(dim=1)


def literal_discrepancy(model: GapClassifier, clean: Tensor, adv: Tensor, y: Tensor) -> Tensor:
    weight = model.weight
    return discrepancy_of_maps(maps(weight, clean), maps(weight, adv), mean_logits(adv, weight), y)
