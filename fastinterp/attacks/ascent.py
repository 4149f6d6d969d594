"""The one loop: every attack, and the inner maximisation of every trainer, is `ascend`."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from ..models.gap import folded_for
from .modes import constant_parameters, eval_mode, own_autograd
from .objectives import Bound, Objective, Scored
from .outputs import Outputs, Precision
from .threats import Threat

Keep = Literal["last", "first_fooled", "best"]


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
    clean: Outputs | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Climb `objective` inside `threat` for `steps` steps of projected gradient ascent.

    The model runs in eval mode and is left as it was: modes, gradients, requires_grad. Callers may
    be under no_grad, inference_mode or autocast. Each image's climb depends on that image alone.
    Where the objective does not need A itself, the climb may run on a folded network, which has the
    same logits and maps up to rounding. With keep="last" nothing waits for a GPU. Inputs are not
    checked here; `PGD` does.

    Args:
        x: images [N, ...].
        y: labels [N], or the targets where the objective is a targeted one.
        random_start, generator: how the threat starts; see `Ball.init`.
        keep: which iterate is the answer, counting the start. "last"; "first_fooled": the first
            whose prediction is wrong (targeted: is the target), else the last, where an image
            leaves the batch once it is fooled; "best": the one with the highest value.
        targeted: whether y are targets, which only "first_fooled" asks.
        clean: the model's outputs at x, where the caller has them already; x' then goes through
            the very network that gave them.
        precision: of the passes at x': see `Outputs` and `convolutions_in`. The iterate, its
            projection and what is computed from features and logits stay in x's type.

    Returns:
        x_adv [N, ...], detached.

    Raises:
        InputError: `keep` is none of the three.
    """
    require_keep(keep)
    with eval_mode(model, precision), constant_parameters(model), own_autograd(x.device.type):
        x, y = _ordinary(x.detach()), _ordinary(y)
        if clean is None:
            model = folded_for(model, objective.needs, x)
        bound = objective.bind(model, x, y, clean, precision)
        z = threat.init(x, random_start, generator)
        if keep == "last":
            return _climb(bound, threat, x, z, steps)
        if keep == "best":
            return _climb_to_best(bound, threat, x, z, steps)
        return _climb_until_fooled(bound, threat, x, z, steps, y, targeted)


def require_keep(keep: str) -> None:
    """Raise unless `keep` names a way to choose among the iterates."""
    if keep not in get_args(Keep):
        raise InputError(f"keep must be one of {', '.join(get_args(Keep))}, got {keep!r}.")


def _ordinary(tensor: Tensor) -> Tensor:
    """Autograd refuses to save tensors made under inference_mode; their clones are ordinary."""
    return tensor.clone() if tensor.is_inference() else tensor


def _score(
    bound: Bound, threat: Threat, x: Tensor, z: Tensor, ones: Tensor
) -> tuple[Tensor, Scored, Tensor]:
    """State z -> x', its score and d value / d z. `ones` [N] seeds the backward pass."""
    z.requires_grad_()
    x_adv = threat.render(x, z)
    scored = bound(x_adv)
    # Only z is asked for: no parameter's gradient is computed, none is left behind.
    (grad,) = torch.autograd.grad(scored.value, z, ones)
    return x_adv.detach(), scored, grad


def _climb(bound: Bound, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        z.requires_grad_()
        tensors, slopes = zip(*bound.slopes(threat.render(x, z)), strict=True)
        (grad,) = torch.autograd.grad(tensors, z, slopes)
        z = threat.step(x, z.detach(), grad)
    return threat.render(x, z).detach()


def _climb_to_best(bound: Bound, threat: Threat, x: Tensor, z: Tensor, steps: int) -> Tensor:
    best, best_value = x.clone(), x.new_full((len(x),), -torch.inf)
    ones = x.new_ones(len(x))
    for step in range(steps + 1):
        if step < steps:
            x_adv, scored, grad = _score(bound, threat, x, z, ones)
        else:
            with torch.no_grad():
                x_adv = threat.render(x, z)
                scored = bound(x_adv)
        value = scored.value.detach()
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), x_adv, best)
        if step < steps:
            z = threat.step(x, z.detach(), grad)
    return best


def _climb_until_fooled(
    bound: Bound, threat: Threat, x: Tensor, z: Tensor, steps: int, y: Tensor, targeted: bool
) -> Tensor:
    answer = x.clone()
    left = torch.arange(len(x), device=x.device)  # which images are still in the batch
    for _ in range(steps):
        x_adv, scored, grad = _score(bound, threat, x, z, x.new_ones(len(x)))
        fooled = is_fooled(scored.logits, y, targeted)
        answer[left[fooled]] = x_adv[fooled]
        going_on = (~fooled).nonzero().squeeze(1)
        if len(going_on) == 0:
            return answer
        z = z.detach()
        if len(going_on) < len(left):
            left, x, y = left[going_on], x[going_on], y[going_on]
            z, grad = z[going_on], grad[going_on]
            bound, threat = bound.rows(going_on), threat.rows(going_on)
        z = threat.step(x, z, grad)
    answer[left] = threat.render(x, z).detach()
    return answer


def is_fooled(logits: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """Logits [N, C], labels or targets [N] -> whether the attack has succeeded, bool [N]."""
    hit = logits.argmax(dim=1) == y
    return hit if targeted else ~hit
