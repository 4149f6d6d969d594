"""Networks that look robust under weak attacks and are not: each hides or spoils its gradients.

`FAKES` names them. Each is made of an honest network whose weights it shares, so that attacks on
that network show what the fake withstands in truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastinterp.models import GapClassifier
from fastinterp.models.gap import OtherFeatures


class Fake(OtherFeatures):
    """An honest network behind `before`, which changes images, and in front of `behind`."""

    def before(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> what the network sees."""
        return x

    def behind(self, logits: Tensor) -> Tensor:
        """The network's logits [N, C] -> those that are given out."""
        return logits

    def features(self, x: Tensor) -> Tensor:
        return self.model.features(self.before(x))

    def logits(self, features: Tensor) -> Tensor:
        return self.behind(self.model.logits(features))


def without_gradient(result: Tensor, x: Tensor) -> Tensor:
    """`result`, whose gradient by x is zero."""
    return result.detach() + 0 * x


def median(x: Tensor) -> Tensor:
    """Each pixel becomes the median of the 3x3 pixels around it."""
    height, width = x.shape[2:]
    around = F.pad(x, (1, 1, 1, 1), mode="reflect")
    shifts = [around[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifts, dim=-1).median(dim=-1).values


class Median(Fake):
    def before(self, x: Tensor) -> Tensor:
        return median(x)


class MedianWithoutGradient(Fake):
    def before(self, x: Tensor) -> Tensor:
        return without_gradient(median(x), x)


class EightLevels(Fake):
    """Eight levels of grey."""

    def before(self, x: Tensor) -> Tensor:
        return without_gradient((7 * x).round() / 7, x)


class JpegRounding(Fake):
    """The DCT coefficients of blocks of 8x8 pixels are rounded to multiples of 0.25."""

    def before(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = F.pad(x, (0, -width % 8, 0, -height % 8))
        blocks = rows.unfold(2, 8, 8).unfold(3, 8, 8)  # [N, C, H/8, W/8, 8, 8]
        i = torch.arange(8, dtype=x.dtype, device=x.device)
        dct = 0.5 * torch.cos(math.pi / 8 * i[:, None] * (i + 0.5))
        dct[0] /= math.sqrt(2)
        rounded = (dct @ blocks @ dct.T * 4).round() / 4
        blocks = dct.T @ rounded @ dct
        image = blocks.transpose(3, 4).reshape(rows.shape)[:, :, :height, :width]
        return without_gradient(image, x)


class ReversedGradient(Fake):
    """The image as it is, and its gradient times -1."""

    def before(self, x: Tensor) -> Tensor:
        return 2 * x.detach() - x


class Scrambled(Fake):
    """The image as it is, and the entries of its gradient in another order."""

    def before(self, x: Tensor) -> Tensor:
        order = torch.randperm(math.prod(x.shape[1:]), generator=torch.Generator().manual_seed(0))
        other = x.flatten(1)[:, order.to(x.device)].view_as(x)
        return x.detach() + other - other.detach()


class Sine(Fake):
    """A ripple so fine that its gradient says nothing about a step of the attack."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.02 * torch.sin(2000 * x)


class TanhBefore(Fake):
    """A steep tanh makes black or white of nearly every pixel."""

    def before(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * torch.tanh(30 * (x - 0.5))


class StoredImages(Fake):
    """The nearest of 500 stored images is classified in place of x."""

    def __init__(self, model: GapClassifier, stored: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("stored", stored[:500])

    def before(self, x: Tensor) -> Tensor:
        stored = self.stored
        assert isinstance(stored, Tensor)
        nearest = torch.cdist(x.detach().flatten(1), stored.flatten(1)).argmin(dim=1)
        return without_gradient(stored[nearest], x)


class Detector(Fake):
    """Where x is rough, as attacked images are, a smoothed image is classified in its place."""

    def before(self, x: Tensor) -> Tensor:
        smooth = median(x.detach())
        rough = (x.detach() - smooth).abs().flatten(1).mean(dim=1) > 0.04
        return torch.where(rough[:, None, None, None], without_gradient(smooth, x), x)


class AntiAdversarial(Fake):
    """Two steps towards a lower cross-entropy of the predicted class, then the network."""

    def before(self, x: Tensor) -> Tensor:
        moved = x.detach()
        with torch.enable_grad():
            predicted = self.model(moved).argmax(dim=1)
            for _ in range(2):
                moved = moved.detach().requires_grad_()
                loss = F.cross_entropy(self.model(moved), predicted, reduction="sum")
                moved = moved - 0.1 * torch.autograd.grad(loss, moved)[0].sign()
        return x + (moved.clamp(0, 1) - x).detach()


class TanhLogits(Fake):
    """tanh of five times how far each logit lies below the highest."""

    def behind(self, logits: Tensor) -> Tensor:
        return torch.tanh(5 * (logits - logits.amax(dim=1, keepdim=True)))


class SaturatingTanh(Fake):
    """Logits that end between -10 and 10, where they hardly move."""

    def behind(self, logits: Tensor) -> Tensor:
        return 10 * torch.tanh(logits)


class LargeLogits(Fake):
    def behind(self, logits: Tensor) -> Tensor:
        return 1e4 * logits


class Temperature(Fake):
    """Logits as of a network that was trained at a temperature of 100 and runs at 1."""

    def behind(self, logits: Tensor) -> Tensor:
        return 100 * logits


class RandomShift(Fake):
    """Each image is moved by up to two pixels in both directions."""

    def before(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        around = F.pad(x, (2, 2, 2, 2))
        moved = [
            one[:, i : i + height, j : j + width]
            for one, (i, j) in zip(around, torch.randint(5, (len(x), 2)).tolist(), strict=True)
        ]
        return torch.stack(moved) if moved else x


class Noise(Fake):
    """Gaussian noise of standard deviation 0.1 on every pixel."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class BatchDependent(Fake):
    """Half the mean of the batch's logits is taken off each image's."""

    def behind(self, logits: Tensor) -> Tensor:
        return logits - 0.5 * logits.mean(dim=0)


Make = Callable[[GapClassifier, Tensor], Fake]
FAKES: dict[str, Make] = {
    "median, no gradient": lambda model, stored: MedianWithoutGradient(model),
    "8 grey levels": lambda model, stored: EightLevels(model),
    "JPEG rounding": lambda model, stored: JpegRounding(model),
    "tanh of 5 x logits": lambda model, stored: TanhLogits(model),
    "reversed gradient": lambda model, stored: ReversedGradient(model),
    "sine": lambda model, stored: Sine(model),
    "scrambled gradient": lambda model, stored: Scrambled(model),
    "stored images": StoredImages,
    "tanh before": lambda model, stored: TanhBefore(model),
    "logits x 1e4": lambda model, stored: LargeLogits(model),
    "temperature 100": lambda model, stored: Temperature(model),
    "saturating tanh": lambda model, stored: SaturatingTanh(model),
    "median with gradient": lambda model, stored: Median(model),
    "detector": lambda model, stored: Detector(model),
    "anti-adversarial": lambda model, stored: AntiAdversarial(model),
    "random shift": lambda model, stored: RandomShift(model),
    "noise": lambda model, stored: Noise(model),
    "batch dependence": lambda model, stored: BatchDependent(model),
}
"""Name -> (honest network, training images [N, C, H, W]) -> the fake."""

RANDOM = ("random shift", "noise")
