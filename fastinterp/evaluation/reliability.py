"""Signs, seen before any attack, that a network's figures under attack may be unreliable.

A figure says little where the gradient is zero or does not point to a higher loss, where two passes
over the same images differ, where an image's logits depend on the other images of its batch, or
where a pass changes the images. Carlini et al. (2019) and Croce et al. (2020) look for such signs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from ..attacks import Margin, Outputs
from ..attacks.modes import eval_mode, own_autograd
from ..attacks.threats import BALLS
from ..ops.pgd_step import Norm
from .measuring import all_batches, in_batches

EXAMINED = 200  # images at most
FLAT = 0.01  # the share of images without a gradient above which figures are doubted
MISLED = 0.05  # the share that a step along the gradient takes downhill; honest networks: 0.000
LOOKS = 4  # steps along each image's gradient, of different lengths
NEAR = 1e-3  # relative change of logits; rounding alone changes them by about 1e-6
ROUNDING = 1e-5  # rise of the margin, over the largest logit, that rounding may hide


class UnreliableFigures(UserWarning):
    """A network shows signs that its figures under attack may be unreliable."""


@dataclass(frozen=True)
class Signs:
    """What was seen of a network, as shares of the images that were looked at.

    Attributes:
        random: two passes gave other logits, bit for bit.
        neighbours: the logits are others in a batch of half the images.
        in_place: a pass changed the image.
        flat: the gradient of the margin is zero at every pixel, or is not finite.
        misled: a short step along that gradient, of some length between eps / 100 and eps / 10,
            does not raise the margin.
    """

    random: float = 0.0
    neighbours: float = 0.0
    in_place: float = 0.0
    flat: float = 0.0
    misled: float = 0.0

    def reasons(self, attacked: bool = True) -> list[str]:
        """Why figures may be unreliable, a sentence each. Gradients matter to attacks alone."""
        found = []
        if self.random:
            found.append(f"two passes give other logits for {_share(self.random)} of the images")
        if self.neighbours:
            found.append(
                f"the logits of {_share(self.neighbours)} of the images depend on the other "
                "images of the batch"
            )
        if self.in_place:
            found.append(f"a pass changes the pixels of {_share(self.in_place)} of the images")
        if attacked and self.flat > FLAT:
            found.append(f"the gradient is zero at {_share(self.flat)} of the images")
        if attacked and self.misled > MISLED:
            found.append(
                f"a step along the gradient does not raise the loss at {_share(self.misled)} of "
                "the images"
            )
        return found

    def once_averaged(self) -> Signs:
        """What is left to say where every pass is a mean over random numbers."""
        return replace(self, random=0.0)

    def require_repeatable(self, who: str) -> None:
        """Raise if the network is random, or changes the images that it is given."""
        if self.random:
            raise InputError(
                f"{who}: the network is random: {self.reasons()[0]}, so an attack may not count "
                "what it finds; pass samples=20 (--samples 20) to attack and judge the mean of 20 "
                "passes."
            )
        if self.in_place:
            raise InputError(
                f"{who}: the network writes into the images that it is given, so an attack would "
                "go on from other images; let its forward pass begin with x = x.clone()."
            )

    def warn(self, who: str) -> None:
        """Say in one line why figures may be unreliable, if they may."""
        if reasons := self.reasons():
            warnings.warn(
                f"{who}: accuracies under attack are potentially unreliable: {'; '.join(reasons)}.",
                UnreliableFigures,
                stacklevel=3,
            )


def look_for_signs(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, batch_size: int
) -> Signs:
    """Look at a network on the first 200 images. Random numbers are drawn as if it had not been.

    Args:
        model: images in [0, 1] -> logits, with its device as `model.device`.
        images, labels: [N, C_in, H, W] and true classes [N].
        norm, eps: of the ball that attacks will search; with an eps of 0 no gradient is taken.
        batch_size: images looked at at a time.

    Raises:
        InputError: the logits have no gradient by the images at all.
    """
    device = next(model.parameters(), images).device
    images, labels = images[:EXAMINED], labels[:EXAMINED]
    found: list[Tensor] = []
    with eval_mode(model), random_numbers(device):
        for rows, (x, y) in in_batches(batch_size, device, images, labels):
            signs = _in_passes(model, x)
            if eps > 0:
                signs += _in_gradients(model, x, y, norm, eps, rows.start)
            else:
                signs += [torch.zeros_like(signs[0])] * 2
            found.append(torch.stack(signs).cpu())
    shares = torch.cat(all_batches(found), dim=1).double().mean(dim=1)
    return Signs(*shares.tolist())


@torch.no_grad()
def _in_passes(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Images x [N, ...] -> whether each is one with random, neighbours and in_place, bool [N]."""
    seen = x.clone()
    logits = model(seen).nan_to_num()
    in_place = (seen != x).flatten(1).any(dim=1)
    random = (model(x.clone()).nan_to_num() != logits).any(dim=1)
    apart = torch.zeros_like(random)
    if len(x) > 1 and not bool(random.any()):
        # Each image without its neighbours on both sides.
        halves = torch.empty_like(logits)
        halves[::2], halves[1::2] = model(x[::2].clone()), model(x[1::2].clone())
        scale = logits.abs().amax(dim=1)
        apart = (halves - logits).abs().amax(dim=1) > NEAR * scale
    return [random, apart, in_place]


def _in_gradients(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, first: int
) -> list[Tensor]:
    """Images x and classes y -> whether each is one with flat and misled, bool [N].

    Every pass begins with the same random numbers, so that a random network is one fixed network
    here.
    """
    with own_autograd(x.device.type):
        x, y = x.detach().clone(), y.clone()  # ordinary tensors, also under inference_mode
        asked = x.clone().requires_grad_()
        # A network may write into a tensor that is no leaf.
        before, scale = _margin(model, asked + 0, y)
        grad = None
        if before.requires_grad:
            (grad,) = torch.autograd.grad(before.sum(), asked, allow_unused=True)
        if grad is None:
            raise InputError(
                "The network's logits have no gradient by the images, so no attack of a protocol "
                "can climb; remove what detaches them."
            )
    flat = (grad == 0).flatten(1).all(dim=1) | ~grad.isfinite().flatten(1).all(dim=1)
    misled = torch.zeros_like(flat)
    with torch.no_grad():
        for look in range(LOOKS):
            # Lengths that no ripple of one wavelength meets at the same place.
            turn = (torch.arange(first, first + len(x)) * LOOKS + look) * 0.6180339887 % 1
            size = (eps * 10 ** (turn - 2)).to(x)
            moved = BALLS[norm](eps, size).step(x, x.clone(), grad)
            promised = ((moved - x) * grad).flatten(1).sum(dim=1)  # to first order
            tells = ~flat & (promised > ROUNDING * scale)
            misled |= tells & ~(_margin(model, moved, y)[0] > before)
    return [flat, misled]


def _margin(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The margins [N], and each image's largest logit in size [N]."""
    torch.manual_seed(0)
    outputs = Outputs(model, x)
    scale = outputs.logits.detach().abs().amax(dim=1)
    return Margin().prepare(outputs, y)(outputs), scale


@contextmanager
def random_numbers(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Give torch's random numbers back as they were; from a seed, if there is one."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _share(value: float) -> str:
    return f"{value:.3f}"
