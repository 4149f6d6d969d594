"""FAB: the nearest image of another class, by steps to the linearised boundary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.keywords import hint_keywords
from .._utils.require import (
    require_count,
    require_nonnegative,
    require_number,
    require_one_of,
    require_positive,
    require_seed,
)
from ..models.freeze import fold, freeze
from ..ops.pgd_step import Norm
from .ascent import is_fooled
from .checks import as_module, require_batch
from .hyperplane import ORDER, length, step_to_hyperplane
from .modes import constant_parameters, eval_mode, own_autograd
from .seeds import as_uniform, draw, draw_normal, image_seeds
from .watch import Watch, require_finite_logits

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
DOUBT = 1e-4  # relative margin below which the cheaper network's verdict is checked


@hint_keywords
class FAB(Described):
    """Fast adaptive boundary attack (Croce and Hein, 2020): a small perturbation, found from x.

    `x_adv = FAB(model)(x, y)`. Each step goes to the boundary of the nearest class as its
    linearisation shows it, a little beyond it, and a little towards x. From a misclassified image
    the attack goes on closer to x.

    Args:
        model: any classifier of images in [lower, upper], as for `PGD`.
        eps: the radius that is enough: an image leaves the batch once it is fooled within it, and
            one that never is comes back as x. None: search the smallest perturbation.
        norm: "linf", "l2" or "l1".
        steps: of each attempt.
        n_target_classes: how many wrong classes are attempted one by one, the likeliest at x first:
            the targeted form, one gradient a step. None: the nearest class at each step,
            which takes C - 1 gradients.
        restarts: number of attempts; the first starts at x, others at random half as far away as
            the best image so far, at most eps / 2.
        alpha_max: the largest weight of the step from x.
        eta: how far steps go, 1 being to the boundary.
        beta: where the attack goes on after a success, 0 being x and 1 the image found.
        seed: of the random starts, which depend on the image and this seed alone.
        lower, upper: the range of valid pixels.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        eps: float | None = None,
        norm: Norm = "linf",
        steps: int = 100,
        n_target_classes: int | None = None,
        restarts: int = 1,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        seed: int = 0,
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> None:
        require_one_of("FAB: norm", norm, ORDER)
        if n_target_classes is not None:
            n_target_classes = require_count("FAB: n_target_classes", n_target_classes)
        for name, share in (("alpha_max", alpha_max), ("beta", beta)):
            if not require_nonnegative(f"FAB: {name}", share) <= 1:
                raise InputError(f"FAB: {name} must lie in 0..1, got {share}.")
        if not require_number("FAB: lower", lower) < require_number("FAB: upper", upper):
            raise InputError(f"FAB: lower must be below upper, got {lower} and {upper}.")
        self.model = as_module("FAB", model)
        self.eps = None if eps is None else require_nonnegative("FAB: eps", eps)
        self.norm: Norm = norm
        self.steps = require_count("FAB: steps", steps)
        self.n_target_classes = n_target_classes
        self.restarts = require_count("FAB: restarts", restarts)
        self.alpha_max = alpha_max
        self.eta = require_positive("FAB: eta", eta)
        self.beta = beta
        self.seed = require_seed("FAB: seed", seed)
        self.lower, self.upper = lower, upper

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack a batch.

        Args:
            x: images [N, ...] in [lower, upper], on the model's device.
            y: true classes [N].

        Returns:
            x_adv, like x: the nearest image found that fools the model; x where there is none
            (within eps), and where the model is wrong already.

        Raises:
            InputError: shapes, dtypes, devices, pixels or labels do not fit; the logits at x or
                the gradients are not finite.
        """
        y = require_batch("FAB", self.model, x, y, False, self.lower, self.upper)
        if x.numel() == 0:
            return x.detach().clone()
        model = self.model
        with eval_mode(model), constant_parameters(model), own_autograd(x.device.type):
            x_adv, y = x.detach().clone(), y.clone()  # the caller may be under inference_mode
            with torch.no_grad():
                logits = model(x_adv)
                network = freeze(fold(model, "logits", x_adv), x_adv)
            require_finite_logits("FAB", logits)
            rows = (~is_fooled(logits, y, False)).nonzero().squeeze(1)
            search = _Search(self, network, x_adv[rows], y[rows])
            for target in self._targets(logits[rows], y[rows]):
                for attempt in range(self.restarts):
                    search.run(target, attempt)
            search.watch.require_finite("FAB", search.found)
            x_adv[rows] = search.found
        return x_adv

    def _targets(self, logits: Tensor, y: Tensor) -> list[Tensor | None]:
        """The classes [N] of each run; None for whichever is nearest."""
        if self.n_target_classes is None:
            return [None]
        others = logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True)
        return list(others[:, : min(self.n_target_classes, logits.shape[1] - 1)].unbind(1))


class _Search:
    """The nearest image found so far for each of a batch, and the runs that look for nearer ones.

    Attributes:
        found: [N, ...], x where there is none.
        nearest: [N], its distance, or infinity.
    """

    def __init__(self, attack: FAB, network: nn.Module, x: Tensor, y: Tensor) -> None:
        self.attack, self.network, self.x, self.y = attack, network, x, y
        self.found, self.nearest = x.clone(), x.new_full((len(x),), torch.inf)
        self.watch = Watch()
        self.enough = -torch.inf if attack.eps is None else attack.eps

    def run(self, target: Tensor | None, attempt: int) -> None:
        """Look for nearer images in one attempt."""
        left = (self.nearest > self.enough).nonzero().squeeze(1)
        if len(left) == 0:
            return
        x, y = self.x[left], self.y[left]
        target = None if target is None else target[left]
        z = self._start(left, attempt)
        for _ in range(self.attack.steps):
            z = self._step(x, z, *self._boundary(z, y, target))
            moved = length(z - x, self.attack.norm)
            wrong, nearer = self._judge(z, y, moved < self.nearest[left])
            images = left[nearer]
            self.found[images], self.nearest[images] = z[nearer], moved[nearer]
            back = torch.where(wrong, self.attack.beta, 1.0).to(x).view(-1, *[1] * (x.dim() - 1))
            z = torch.lerp(x, z, back)
            rows = (self.nearest[left] > self.enough).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            if len(rows) < len(left):
                left, x, y, z = left[rows], x[rows], y[rows], z[rows]
                target = None if target is None else target[rows]
        reached = self.nearest <= (torch.inf if self.attack.eps is None else self.attack.eps)
        images = reached.view(-1, *[1] * (self.x.dim() - 1))
        self.found = torch.where(images, self.found, self.x)

    def _start(self, left: Tensor, attempt: int) -> Tensor:
        x = self.x[left]
        if attempt == 0:
            return x
        pixels, norm = x[:1].numel(), self.attack.norm
        seeds = image_seeds(x, self.attack.seed, f"FAB {attempt}")
        if norm == "linf":
            direction = 2 * as_uniform(draw(seeds, 0, pixels)) - 1
        else:
            direction = draw_normal(seeds, 0, pixels)
        radius = self.nearest[left]
        if self.attack.eps is not None:
            radius = radius.clamp(max=self.attack.eps)
        radius = torch.where(radius.isfinite(), radius, 1.0) / 2
        shift = (radius / length(direction, norm))[:, None] * direction
        return (x + shift.to(x).view_as(x)).clamp(self.attack.lower, self.attack.upper)

    def _boundary(self, z: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images z [M, ...] -> f_s - f_y for the nearest class s, [M], and its gradient [M, d]."""
        z = z.detach().requires_grad_()
        logits = self.network(z)
        own, classes = logits.gather(1, y[:, None]), logits.shape[1]
        if target is None:
            columns = (y[:, None] + torch.arange(1, classes, device=y.device)) % classes
        else:
            columns = target[:, None]
        ahead = logits.gather(1, columns) - own  # [M, C - 1 or 1]
        ones, last = torch.ones_like(y, dtype=ahead.dtype), ahead.shape[1] - 1
        nearest, chosen = ahead.new_full((len(y),), torch.inf), ahead.new_zeros(len(y))
        normal = torch.zeros_like(z).flatten(1)
        for k, value in enumerate(ahead.unbind(1)):
            (grad,) = torch.autograd.grad(value, z, ones, retain_graph=k < last)
            self.watch.see(grad)
            grad = grad.flatten(1)
            size = torch.linalg.vector_norm(grad, ord=DUAL[self.attack.norm], dim=1)
            distance = value.detach().abs() / size.clamp(min=1e-12)
            less = distance < nearest
            nearest, chosen = torch.where(less, distance, nearest), torch.where(less, value, chosen)
            normal = torch.where(less[:, None], grad, normal)
        return chosen.detach(), normal.detach()

    def _step(self, x: Tensor, z: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        """From z to the hyperplane value + <grad, . - z> = 0, and towards that nearest to x."""
        attack, flat_x, flat_z = self.attack, x.flatten(1), z.detach().flatten(1)
        from_x = -value - (grad * (flat_x - flat_z)).sum(dim=1)
        steps = step_to_hyperplane(
            torch.cat([flat_z, flat_x]),
            torch.cat([grad, grad]),
            torch.cat([-value, from_x]),
            attack.norm,
            attack.lower,
            attack.upper,
        )
        near, far = length(steps, attack.norm).clamp(min=1e-8).chunk(2)
        alpha = (near / (near + far)).clamp(max=attack.alpha_max)[:, None]
        step_z, step_x = steps.chunk(2)
        moved = torch.lerp(flat_z + attack.eta * step_z, flat_x + attack.eta * step_x, alpha)
        return moved.clamp(attack.lower, attack.upper).view_as(x)

    def _judge(self, z: Tensor, y: Tensor, nearer: Tensor) -> tuple[Tensor, Tensor]:
        """Which images fool the network, and which of those that are `nearer` fool the model."""
        with torch.no_grad():
            logits = self.network(z)
            wrong = is_fooled(logits, y, False)
            nearer = nearer & wrong
            if self.network is self.attack.model:
                return wrong, nearer
            top = logits.topk(2, dim=1).values
            doubtful = top[:, 0] - top[:, 1] <= DOUBT * logits.abs().amax(dim=1)
            rows = (nearer & doubtful).nonzero().squeeze(1)
            if len(rows) > 0:
                nearer[rows] = is_fooled(self.attack.model(z[rows]), y[rows], False)
            return wrong, nearer
