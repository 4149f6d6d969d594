"""Gradients of the logits by the pixels, plain, smoothed and guided."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.require import require_count, require_nonnegative
from ..models.gap import require_fit, require_network
from .base import Classes, class_index, pick
from .gradients import autograd_on, class_scores, mean_gradient, score_gradients, variable
from .relu import guided_relu, logits_without_relu
from .watch import warn_of_misuse


class Gradient(Described):
    """d f_c / d x (Simonyan et al., 2013), signed: no absolute value, no maximum over channels.

    Differentiable to any order that the network is; for a ReLU network second derivatives exist
    almost everywhere.

    Raises:
        InputError: the model is no bare module; when called, x is no batch of images that it
            takes, or a class is none of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        require_network(type(self).__name__, model)
        self.model = model

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] -> maps [N, C', C_in, H, W]; `classes` as in `Classes`."""
        require_fit(type(self).__name__, self.model, x)
        warn_of_misuse(type(self).__name__, self.model, x)
        index = class_index(classes, x, self.model)
        with autograd_on(x, *self.model.parameters()) as differentiable:
            x = variable(x, differentiable)
            scores = pick(self.logits(x), index, self.model)
            return torch.stack(list(score_gradients(scores, x, differentiable)), dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """The logits [N, C] whose gradient is taken."""
        return self.model(x)  # type: ignore[no-any-return]


class GuidedBackprop(Gradient):
    """Guided backpropagation (Springenberg et al., 2014).

    `Gradient` with a ReLU whose backward pass passes only positive gradients, to positive inputs.
    The network is not changed: its ReLUs are replaced while it runs. A derivative of the map
    differentiates this rule, which is no derivative of the network.

    Raises:
        InputError: as for `Gradient`; when called, also if the network calls no ReLU.
    """

    def logits(self, x: Tensor) -> Tensor:
        """The logits [N, C], unchanged; only their backward pass differs."""
        return logits_without_relu(self.model, x, guided_relu)


class SmoothGrad(Described):
    """SmoothGrad (Smilkov et al., 2017): `Gradient` averaged over noisy copies of the image.

    The noise is Gaussian. Every call draws the same noise from `seed` for all images of the batch,
    so the map is a function of the image alone. Noisy copies are not clamped to [0, 1].
    Differentiable like `Gradient`.

    Args:
        model: the network.
        samples: noisy copies an image.
        noise: standard deviation in pixel units (images in [0, 1]).
        seed: of the noise.
        chunk_size: most copies in one pass through the network; see `gradients.mean_gradient`.

    Raises:
        InputError: samples or chunk_size below 1, or negative noise; else as for `Gradient`.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: int = 50,
        noise: float = 0.15,
        *,
        seed: int = 0,
        chunk_size: int = 512,
    ) -> None:
        require_network("SmoothGrad", model)
        self.model = model
        self.samples = require_count("samples", samples)
        self.noise = require_nonnegative("noise", noise)
        self.seed = seed
        self.chunk_size = require_count("chunk_size", chunk_size)

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] -> maps [N, C', C_in, H, W]; `classes` as in `Classes`."""
        require_fit("SmoothGrad", self.model, x)
        warn_of_misuse("SmoothGrad", self.model, x)
        noise = self._noise(x)
        return mean_gradient(
            class_scores(self.model, class_index(classes, x, self.model), self.model),
            lambda numbers, x: x + noise[numbers][:, None],
            (x,),
            self.samples,
            chunk_size=self.chunk_size,
            module=self.model,
        )

    def _noise(self, x: Tensor) -> Tensor:
        """[samples, C_in, H, W], the same on every device."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.samples, *x.shape[1:], generator=generator, dtype=torch.float64)
        return (self.noise * noise).to(device=x.device, dtype=x.dtype)
