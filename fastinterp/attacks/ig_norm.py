"""The regulariser of IG-Norm: how much of the loss's growth integrated gradients attribute."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .._utils.require import require_count, require_one_of
from ..interpreters.gradients import twice_differentiable
from ..models.gap import Needs
from .objectives import Objective, Units, Value
from .outputs import Outputs


class IGNorm(Objective):
    """R = || IG(x, x') ||_1, integrated gradients of the cross-entropy along x to x'.

    With m steps, IG = (x' - x) * 1/m sum_{k=1..m} grad CE(x + k/m (x' - x)), a right Riemann sum
    (Chen et al., 2019; section 5 of the paper). Its gradient goes through the gradients, so the
    network is differentiated twice: each evaluation costs about m passes of that kind.

    Args:
        steps: m.
        units: "paper" is R as above. "release" divides it by the number of images in the batch,
            because the authors' programs took the gradient of the batch's mean loss.
    """

    flat_at_x = True
    needs: Needs = "logits"

    def __init__(self, steps: int = 5, units: Units = "paper") -> None:
        self.steps = require_count("IGNorm: steps", steps)
        self.units = require_one_of("IGNorm: units", units, get_args(Units))

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        model, x, m = clean.model, clean.x, self.steps
        fractions = torch.arange(1, m + 1, device=x.device, dtype=x.dtype) / m
        fractions = fractions.view(m, *[1] * x.dim())  # [m, 1, 1, ...]
        repeated = labels.repeat(m)  # [m N]
        images = len(labels) if clean.images is None else clean.images
        scale = 1.0 / max(images, 1) if self.units == "release" else 1.0

        @torch.enable_grad()  # it takes gradients even where its caller wants only the value
        def value(adv: Outputs) -> Tensor:
            delta = adv.x - x  # [N, ...]
            path = (x + fractions * delta).flatten(0, 1)  # [m N, ...]
            if not path.requires_grad:  # in the outer loss x' is a constant
                path.requires_grad_()
            # One batch of all the points; the sum keeps each image's gradient its own.
            with twice_differentiable():
                logits = Outputs(model, path, adv.precision).logits
            loss = F.cross_entropy(logits, repeated, reduction="sum")
            (grad,) = torch.autograd.grad(loss, path, create_graph=True)
            attribution = delta * grad.view(m, *x.shape).mean(dim=0)
            norm: Tensor = attribution.abs().flatten(1).sum(dim=1)
            return scale * norm

        return value
