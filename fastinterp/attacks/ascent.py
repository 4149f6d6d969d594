"""The one loop: every attack, and the inner maximisation of every trainer, is `ascend`."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._utils.require import require_one_of
from ..models.freeze import fold, freeze
from .climber import Climber, FixedSteps
from .fused import climb_at_once
from .modes import constant_parameters, eval_mode, own_autograd
from .objectives import Objective, Value
from .outputs import Outputs, Precision
from .threats import Threat

Keep = Literal["last", "first_fooled", "best"]
FIXED_STEPS = FixedSteps()


def ascend(
    model: nn.Module,
    threat: Threat,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    steps: int,
    *,
    random_start: bool = False,
    generator: torch.Generator | None = None,
    keep: Keep = "last",
    targeted: bool = False,
    climber: Climber = FIXED_STEPS,
    start: Tensor | None = None,
    clean: Outputs | None = None,
    precision: Precision = "float32",
    images: int | None = None,
) -> Tensor:
    """Climb `objective` inside `threat` for `steps` gradient steps, as far as `climber` says.

    The model runs in eval mode and is left as it was: modes, gradients, requires_grad. Callers may
    be under no_grad, inference_mode or autocast. Each image's path depends on that image alone.
    Where the objective allows it, the steps run on a cheaper network with the same logits (see
    `fastinterp.models.freeze`). With keep="last" nothing waits for a GPU. Inputs are not checked
    here; the attacks check them.

    Args:
        x: images [N, ...].
        y: labels [N], or the targets where the objective is a targeted one.
        random_start, generator: how the threat starts; see `Ball.init`.
        keep: which iterate is returned, the start included. "last"; "first_fooled": the first
            whose prediction is wrong (targeted: is the target), else the last, where an image
            leaves the batch once it is fooled; "best": the one with the highest value.
        targeted: whether y are targets; only "first_fooled" reads it.
        climber: how far each step goes; by default as far as the threat says.
        start: the threat's z to start at instead (for a ball, images inside it).
        clean: the model's outputs at x, where the caller has them already; x' then goes through
            the same network.
        precision: of the passes at x': see `Outputs` and `convolutions_in`. The iterate, its
            projection and what is computed from features and logits stay in x's type.
        images: of the whole batch, where x is a process's share of it; see `Outputs`.

    Returns:
        x_adv [N, ...], detached.

    Raises:
        InputError: `keep` is none of the three.
    """
    require_keep(keep)
    with eval_mode(model, precision), constant_parameters(model), own_autograd(x.device.type):
        x, y = _ordinary(x.detach()), _ordinary(y)
        if clean is None:
            with torch.no_grad():  # the parameters are constants
                clean = Outputs(fold(model, objective.needs, x), x, images=images)
        clean = clean.detach()
        if keep == "last":
            at_once = climb_at_once(
                threat, objective, climber, clean, x, y, steps,
                random_start=random_start, generator=generator, start=start, precision=precision,
            )  # fmt: skip
            if at_once is not None:
                return at_once
        network = freeze(clean.model, x, precision)
        value = _prepare(objective, clean, y)
        z = threat.init(x, random_start, generator) if start is None else start.detach().clone()
        found, highest = x.clone(), x.new_full((len(x),), -torch.inf)
        climb = climber.start(threat, x, z, steps)
        left = torch.arange(len(x), device=x.device)  # the images that are still in the batch
        for _ in range(steps):
            z.requires_grad_()
            x_adv = threat.render(x, z)
            adv = Outputs(network, x_adv, precision)
            values = value(adv)
            # Only z is asked for: no parameter's gradient is computed, none is left behind.
            (grad,) = torch.autograd.grad(values, z, torch.ones_like(values))
            z = z.detach()
            if keep == "best":
                found, highest = _higher(found, highest, x_adv.detach(), values.detach())
            elif keep == "first_fooled":
                fooled = is_fooled(adv.logits, y, targeted)
                found[left[fooled]] = x_adv.detach()[fooled]
                rows = (~fooled).nonzero().squeeze(1)
                if len(rows) == 0:
                    return found
                if len(rows) < len(left):
                    left, x, y, z, grad, values = (t[rows] for t in (left, x, y, z, grad, values))
                    objective, clean = objective.rows(rows), clean.rows(rows)
                    threat, climb = threat.rows(rows), climb.rows(rows)
                    value = _prepare(objective, clean, y)
            z = climb.step(threat, x, z, grad, values)
        x_adv = threat.render(x, z).detach()
        if keep == "last":
            return x_adv
        if keep == "first_fooled":
            found[left] = x_adv
            return found
        with torch.no_grad():
            values = value(Outputs(network, x_adv, precision))
        return _higher(found, highest, x_adv, values)[0]


def require_keep(keep: str) -> None:
    """Raise unless `keep` names a way to choose among the iterates."""
    require_one_of("keep", keep, get_args(Keep))


def is_fooled(logits: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """Logits [N, C], labels or targets [N] -> whether the attack has succeeded, bool [N].

    Logits that are not finite are no prediction, so that nothing has succeeded.
    """
    hit = logits.argmax(dim=1) == y
    return (hit if targeted else ~hit) & logits.isfinite().all(dim=1)


def _ordinary(tensor: Tensor) -> Tensor:
    """Autograd refuses to save tensors made under inference_mode; their clones are ordinary."""
    return tensor.clone() if tensor.is_inference() else tensor


@torch.no_grad()
def _prepare(objective: Objective, clean: Outputs, y: Tensor) -> Value:
    return objective.prepare(clean, y)


def _higher(best: Tensor, highest: Tensor, x_adv: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The images [N, ...] with the higher value, and that value [N]."""
    higher = values > highest
    images = higher.view(-1, *[1] * (x_adv.dim() - 1))
    return torch.where(images, x_adv, best), torch.where(higher, values, highest)
