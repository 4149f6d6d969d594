"""What one Int iteration is compared with: its convolutions alone, and eager programs.

On a GPU the convolutions run as a CUDA graph, like the trainer's steps; the programs do not. The
programs draw the random start as `IntTrainer` does and make one step of Adam. All run the network
without folding, with torch's own convolutions, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.utils import Thunk
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
Objective = Callable[[Tensor], Tensor]  # features at x' -> discrepancy [N]


class TorchConv2d(SameConv2d):
    """The same layer with torch's own derivative."""

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

    def plain(self) -> GapClassifier:
        """The same network, with torch's own derivatives."""
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
    """Only what `model.features` computes, convolutions and ReLUs, in float32.

    As often as an iteration needs them if it computes the clean features once: forward at x, for
    each inner step forward at x' and backward to the image, forward at x' once more, and one
    backward pass through both outer forward passes to the weights. The gradients at the feature
    maps are constants and x' does not move: no class map, loss, step, projection or optimiser.
    `layout` is that of the images, and so of all feature maps.
    """
    model = setting.plain()
    return _passes(setting, layout, model, _convolutions_of(model))


def folded_convolutions_alone(setting: Setting) -> Thunk:
    """The same for the trainer's own passes: with the classifier folded in where that is possible,
    with our derivative for images of few channels, and with the inner loop's passes in one kernel
    where they are one."""
    model = setting.model()
    wanted = _convolutions_of(model)
    folded = fold(model, "maps", setting.images()[0])
    if isinstance(folded, FoldedClassifier):
        kernel, bias = (t.detach().requires_grad_() for t in folded.head[:2])
        model = FoldedClassifier(folded.model, folded.head._replace(kernel=kernel, bias=bias))
        top = f"layers.{len(folded.model.layers) - 1}."
        wanted = [*_convolutions_of(folded.model, top), kernel, bias]
    return _passes(setting, setting.layout, model, wanted, frozen=True)


def _convolutions_of(model: GapClassifier, *but: str) -> list[Tensor]:
    """All parameters but the classifier's, and those whose names begin with one of `but`."""
    named = model.named_parameters()
    return [p for name, p in named if name != "weight" and not name.startswith(but)]


def _passes(
    setting: Setting,
    layout: torch.memory_format,
    model: GapClassifier | FoldedClassifier,
    wanted: Sequence[Tensor],
    frozen: bool = False,
) -> Thunk:
    """`frozen`: the inner loop's passes are those of the trainer."""
    x = setting.images()[0].to(memory_format=layout)
    x_adv = x.flip(0).to(memory_format=layout).requires_grad_()
    ones = torch.ones_like(model.features(x))

    def run() -> tuple[Tensor, ...]:
        clean = model.features(x)
        inner = partial(Outputs, freeze(model, x) if frozen else model)
        for _ in range(setting.steps):
            torch.autograd.grad(inner(x_adv).features, x_adv, ones)
        adv = model.features(x_adv.detach())
        return torch.autograd.grad((clean, adv), wanted, (ones, ones))

    return run if setting.device == "cpu" else _as_graph(run, torch.device(setting.device))


def _as_graph(run: Callable[[], tuple[Tensor, ...]], device: torch.device) -> Thunk:
    """The same passes as a CUDA graph, which returns the same tensors each time."""
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


def as_released(setting: Setting) -> Thunk:
    """As the authors' release works: each inner step passes x through the network again, computes
    the maps of both images, and differentiates the formula as it is written.

    Here the pass at x builds no graph, which makes this program faster than the release.
    """

    def objective(model: GapClassifier, x: Tensor, y: Tensor, clean: Tensor) -> Objective:
        def value(adv: Tensor) -> Tensor:
            with torch.no_grad():
                again = model.features(x)
            return discrepancy(model, again, adv, y)

        return value

    return _eager_iteration(setting, objective)


def clean_maps_once(setting: Setting) -> Thunk:
    """Eager torch that computes the clean maps once, and uses their features in the outer loss."""

    def objective(model: GapClassifier, x: Tensor, y: Tensor, clean: Tensor) -> Objective:
        weight = model.weight.detach()
        maps_clean = maps(weight, clean.detach())
        return lambda adv: discrepancy_of_maps(
            maps_clean, maps(weight, adv), mean_logits(adv, weight), y
        )

    return _eager_iteration(setting, objective)


def _eager_iteration(setting: Setting, objective: Callable[..., Objective]) -> Thunk:
    model = setting.plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    x, y = setting.images()
    generator = torch.Generator(device=setting.device)
    done = 0

    def run() -> Tensor:
        nonlocal done
        clean = model.features(x)
        value = objective(model, x, y, clean)
        generator.manual_seed(derive(0, "start", done))
        noise = torch.rand(x.shape, generator=generator, device=x.device).mul_(2).sub_(1)
        x_adv = (x + setting.eps * noise).clamp_(0, 1)
        for _ in range(setting.steps):
            x_adv.requires_grad_()
            (grad,) = torch.autograd.grad(value(model.features(x_adv)).sum(), x_adv)
            moved = x_adv.detach() + setting.step_size * grad.sign()
            inside = torch.minimum(torch.maximum(moved, x - setting.eps), x + setting.eps)
            x_adv = inside.clamp(0, 1)
        distance = discrepancy(model, clean, model.features(x_adv), y)
        loss = F.cross_entropy(model.logits(clean), y) + GAMMA * distance.mean()
        optimizer.zero_grad()
        loss.backward()
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
    """Eq. (8) without the 1/u of eq. (1): maps [N, C, u] and, at x', logits [N, C] -> [N]."""
    by_class = (clean - adv).abs().sum(dim=2)  # [N, C]
    true = F.one_hot(y, logits.shape[1]).bool()
    others = torch.softmax(logits.masked_fill(true, -torch.inf), dim=1)
    return by_class.gather(1, y[:, None]).squeeze(1) + (others * by_class).sum(dim=1)


def discrepancy(model: GapClassifier, clean: Tensor, adv: Tensor, y: Tensor) -> Tensor:
    weight = model.weight
    return discrepancy_of_maps(maps(weight, clean), maps(weight, adv), mean_logits(adv, weight), y)
