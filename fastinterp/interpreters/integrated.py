"""Integrated gradients (Sundararajan et al., ICML 2017), eq. (2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_count, require_number, require_positive
from ..models.gap import require_fit, require_network
from .base import Classes, class_index
from .gradients import Score, class_scores, mean_gradient
from .relu import logits_without_relu
from .watch import warn_of_misuse


def integrated_gradients(
    score: Score,
    start: Tensor,
    end: Tensor,
    steps: int,
    *,
    chunk_size: int = 512,
    module: nn.Module | None = None,
) -> Tensor:
    """Integrated gradients of any score along the straight path from start to end, eq. (2).

    IG = (end - start) * (1/m) sum_{k=1..m} grad score(start + (k/m) (end - start)): a right Riemann
    sum. Summed over the input it approaches score(end) - score(start), with an error of order 1/m.

    Args:
        score: points [B, ...] and the row of the batch each belongs to, [B] -> scores [B, C'], each
            depending on its own point alone. A loss finds its labels by the rows.
        start, end: [N, ...].
        steps: m.
        chunk_size: most points in one pass through the network; it bounds the memory. Only where
            one pass is enough does the result have second derivatives.
        module: the network, if the result is to be differentiable by its parameters.

    Returns:
        [N, C', ...], with a graph to start, end and the module's parameters if torch would make
        one.

    Raises:
        InputError: start and end do not match, or steps or chunk_size are below 1.
    """
    require_count("steps", steps)
    require_count("chunk_size", chunk_size)
    if start.shape != end.shape or start.dtype != end.dtype or start.device != end.device:
        raise InputError(
            "the path's start and end must have one shape, dtype and device, got "
            f"{list(start.shape)}, {start.dtype}, {start.device} and "
            f"{list(end.shape)}, {end.dtype}, {end.device}."
        )

    def points(numbers: Tensor, start: Tensor, end: Tensor) -> Tensor:
        fractions = (numbers + 1).to(end.dtype) / steps
        return start + fractions.view(-1, *[1] * end.dim()) * (end - start)

    mean = mean_gradient(score, points, (start, end), steps, chunk_size=chunk_size, module=module)
    return (end - start)[:, None] * mean


class IntegratedGradients(Described):
    """Integrated gradients of the logit of each class, eq. (2), from a baseline image.

    Complete up to the Riemann sum: sum_i L(x, c)_i -> f_c(x) - f_c(baseline) as steps grow. Under
    `softplus` that holds for the softened network. Differentiable by x and by the network's
    parameters (second order through the network); for a ReLU network the second derivative exists
    almost everywhere but misses the kinks; `softplus` is for that case.

    Args:
        model: the network.
        steps: m, the points of the right Riemann sum.
        baseline: a number, or a tensor that broadcasts to x: the image that the path starts at. The
            default is the black image.
        softplus: replace each ReLU by log(1 + exp(beta x)) / beta while interpreting, as the
            authors' program does (beta 1). The network itself is not changed.
        beta: sharpness of the softplus.
        chunk_size: most images in one pass through the network; see `integrated_gradients`.

    Raises:
        InputError: the model is no bare module, steps or chunk_size below 1, beta not positive;
            when called, an x that the network does not take, a class that is none of its own, a
            baseline that does not fit x, or `softplus` for a network that calls no ReLU.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int = 100,
        baseline: float | Tensor = 0.0,
        *,
        softplus: bool = False,
        beta: float = 1.0,
        chunk_size: int = 512,
    ) -> None:
        require_network("IntegratedGradients", model)
        if not isinstance(baseline, Tensor):
            require_number("baseline", baseline)
        self.model = model
        self.steps = require_count("steps", steps)
        self.baseline = baseline
        self.softplus = softplus
        self.beta = require_positive("beta", beta)
        self.chunk_size = require_count("chunk_size", chunk_size)

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] -> maps [N, C', C_in, H, W]; `classes` as in `Classes`."""
        require_fit("IntegratedGradients", self.model, x)
        warn_of_misuse("IntegratedGradients", self.model, x)
        return self.between(self._start(x), x, classes)

    def between(self, start: Tensor, end: Tensor, classes: Classes = None) -> Tensor:
        """The path between two batches of images [N, C_in, H, W] -> [N, C', C_in, H, W]."""
        return integrated_gradients(
            class_scores(self.logits, class_index(classes, end, self.model), self.model),
            start,
            end,
            self.steps,
            chunk_size=self.chunk_size,
            module=self.model,
        )

    def logits(self, x: Tensor) -> Tensor:
        """The logits [N, C] that are explained: the network's, softened if `softplus` is set."""
        if not self.softplus:
            return self.model(x)  # type: ignore[no-any-return]
        return logits_without_relu(self.model, x, lambda value: F.softplus(value, beta=self.beta))

    def _start(self, x: Tensor) -> Tensor:
        if not isinstance(self.baseline, Tensor):
            return torch.full_like(x, self.baseline)
        try:
            return self.baseline.to(x).expand_as(x)
        except RuntimeError as error:
            raise InputError(
                f"the baseline must broadcast to images of shape {list(x.shape)}, "
                f"got {list(self.baseline.shape)}."
            ) from error
