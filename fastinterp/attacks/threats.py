"""Where x' may go: how a perturbation starts, moves and becomes an image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_nonnegative, require_positive
from ..ops import pgd_step
from ..ops.pgd_step import Norm
from .capped_l1 import project_l1_capped


class Threat(Protocol):
    """A set of perturbed images, and how to move inside it.

    The attack moves a tensor z whose first dimension is the batch. For the balls below z is x'
    itself; for other threats it is whatever `render` makes an image of.
    """

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """Images x [N, ...] -> the first z, a new tensor."""
        ...

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        """Move z along grad (d value / d z) and back into the set. May write into z."""
        ...

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        """z -> images x' [N, ...]. Differentiable in z."""
        ...

    def rows(self, index: Tensor) -> Threat:
        """The threat for the images at `index` [M] alone."""
        ...


@dataclass(frozen=True)
class Ball:
    """All x' in [lower, upper] with || x' - x ||_p <= eps.

    Attributes:
        eps: radius, in pixel units: a number, or a tensor [N] with one for each image.
        step_size: of one step, a number or a tensor [N]; `fastinterp.ops.pgd_step` says what it
            means in each norm.
        lower, upper: the range of valid pixels.
        share: (first, images): x are the images from number `first` on of a batch of so many. The
            random start is drawn for the whole batch, so that it does not depend on who holds x.

    Raises:
        InputError: eps or step_size is negative or not finite, or the range is empty.
    """

    eps: float | Tensor
    step_size: float | Tensor
    lower: float = 0.0
    upper: float = 1.0
    share: tuple[int, int] | None = field(default=None, kw_only=True, repr=False)
    norm: ClassVar[Norm]

    def __post_init__(self) -> None:
        require_radius("eps", self.eps)
        require_radius("step_size", self.step_size)
        if not self.lower < self.upper:
            raise InputError(f"lower must be below upper, got {self.lower} and {self.upper}.")

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        """x itself, or a point drawn uniformly from the ball around x, clipped to the range.

        Draws happen on the generator's device, so that a CPU generator gives the same points for
        a model on a GPU; without a generator, torch's default one for x's device draws.
        """
        if not random_start:
            return x.clone()
        if self.share is None:
            noise = self._noise(x, generator).view_as(x)
        else:
            first, images = self.share
            whole = self._noise(x.new_empty((images, *x.shape[1:])), generator)
            noise = whole[first : first + len(x)].view_as(x)
        # In place, so that x's memory format stays.
        return (
            x.clone().add_(per_image(self.start_radius, x) * noise).clamp_(self.lower, self.upper)
        )

    @property
    def start_radius(self) -> float | Tensor:
        """Of the ball that random starts are drawn from."""
        return self.eps

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return self._pgd_step(x, z, grad, self.step_size, inplace=True)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        return z

    def rows(self, index: Tensor) -> Ball:
        return replace(self, eps=rows_of(self.eps, index), step_size=rows_of(self.step_size, index))

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: Tensor) -> Tensor:
        """Like `step`, by `size` [N] instead of the ball's own step size; z stays as it is."""
        return self._pgd_step(x, z, grad, size, inplace=False)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Images z [N, ...] -> images in the set, a new tensor; those inside stay as they are.

        linf, l1: the nearest. l2: the nearest in the ball, clipped to the range.
        """
        return self._pgd_step(x, z, z, 0.0, inplace=False)

    def scaled(self, factor: float) -> Ball:
        """The ball of `factor` times the radius, with the same steps."""
        return replace(self, eps=factor * self.eps)

    def _pgd_step(
        self, x: Tensor, z: Tensor, grad: Tensor, size: float | Tensor, inplace: bool
    ) -> Tensor:
        return pgd_step(
            z,
            grad,
            x,
            like(size, x),
            like(self.eps, x),
            self.lower,
            self.upper,
            self.norm,
            inplace=inplace,
            validate=False,
        )

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """[N, d], drawn uniformly from the unit ball."""
        raise NotImplementedError


class LinfBall(Ball):
    """Every pixel may change by eps at most."""

    norm: ClassVar[Norm] = "linf"

    def draws(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """[N, d], uniform in [0, 1): a random start is 2 draws - 1 radii from x."""
        return draw_like(x, generator).uniform_(generator=generator).to(x)

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.draws(x, generator).mul(2).sub_(1)


class L2Ball(Ball):
    """The change has Euclidean length eps at most."""

    norm: ClassVar[Norm] = "l2"

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # A Gaussian gives the direction; the volume inside radius r grows as r^d.
        direction = torch.empty_like(draw_like(x, generator)).normal_(generator=generator)
        length: Tensor = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        share = torch.rand(
            (len(x), 1), generator=generator, device=direction.device, dtype=direction.dtype
        )
        radius = share.pow(1 / max(direction.shape[1], 1))
        return (direction * (radius / length)).to(x)


class L1Ball(Ball):
    """The absolute changes add up to eps at most."""

    norm: ClassVar[Norm] = "l1"

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # d + 1 exponentials over their sum are uniform on the simplex; dropping one leaves its
        # solid part, and random signs fill the ball.
        draw = draw_like(x, generator)
        size = (draw.shape[0], draw.shape[1] + 1)
        parts = torch.empty(size, device=draw.device, dtype=draw.dtype)
        parts.exponential_(generator=generator)
        signs = torch.rand(
            draw.shape, generator=generator, device=draw.device, dtype=draw.dtype
        ).sub_(0.5)
        return (torch.copysign(parts[:, 1:], signs) / parts.sum(dim=1, keepdim=True)).to(x)

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: Tensor) -> Tensor:
        """Moves the pixels whose gradient is not zero, each by an equal part of `size`.

        Together with a gradient that is zero at most pixels this is the sparse step of Croce and
        Hein (2021).
        """
        signs = grad.flatten(1).sign()
        parts = size.to(x)[:, None] / signs.count_nonzero(dim=1)[:, None].clamp(min=1)
        return self.project(x, z + (parts * signs).view_as(x))

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        flat, delta = x.flatten(1), (z - x).flatten(1)
        room = torch.where(delta > 0, self.upper - flat, flat - self.lower).clamp_(min=0)
        inside = flat + project_l1_capped(delta, room, per_image(self.eps, delta))
        return inside.clamp_(self.lower, self.upper).view_as(x)


@dataclass(frozen=True)
class SoftSignBall(LinfBall):
    """Every pixel may change by eps at most; a step is step_size * clip(gain * grad, -1, 1).

    Where the gradient is large that is the step along its sign. Where it is tiny, because the parts
    of an objective cancel or nothing depends on the pixel, the pixel moves little or not at all.

    Attributes:
        gain: positive; the greater, the closer to the sign.
    """

    gain: float = 1000.0
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gain", self.gain)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return self.move(x, z, grad, self.step_size)

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: float | Tensor) -> Tensor:
        eps, step_size = (per_image(value, x) for value in (self.eps, size))
        moved = z + step_size * (self.gain * grad).clamp_(-1, 1)
        inside = torch.minimum(torch.maximum(moved, x - eps), x + eps)
        return inside.clamp_(self.lower, self.upper)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


class Movable(Threat, Protocol):
    """A threat in which a climber chooses the sizes of its steps: a ball of pixels, around which
    others of this file may lie; see `movable`."""

    @property
    def eps(self) -> float | Tensor: ...

    @property
    def norm(self) -> Norm: ...

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: Tensor) -> Tensor: ...

    def project(self, x: Tensor, z: Tensor) -> Tensor: ...

    def scaled(self, factor: float) -> Movable: ...


@dataclass(frozen=True)
class Around:
    """A threat that does what another one does; subclasses change some of it."""

    threat: Threat

    def init(self, x: Tensor, random_start: bool, generator: torch.Generator | None) -> Tensor:
        return self.threat.init(x, random_start, generator)

    def step(self, x: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        return self.threat.step(x, z, grad)

    def render(self, x: Tensor, z: Tensor) -> Tensor:
        return self.threat.render(x, z)

    def rows(self, index: Tensor) -> Threat:
        return replace(self, threat=self.threat.rows(index))

    @property
    def eps(self) -> float | Tensor:
        return movable(self.threat).eps

    @property
    def norm(self) -> Norm:
        return movable(self.threat).norm

    def move(self, x: Tensor, z: Tensor, grad: Tensor, size: Tensor) -> Tensor:
        return movable(self.threat).move(x, z, grad, size)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        return movable(self.threat).project(x, z)

    def scaled(self, factor: float) -> Around:
        return replace(self, threat=movable(self.threat).scaled(factor))


def movable(threat: Threat) -> Movable:
    """The same threat, if steps of any size can be taken in it.

    Raises:
        InputError: it is no ball of pixels, with or without something around it.
    """
    inner = threat
    while isinstance(inner, Around):
        inner = inner.threat
    if not isinstance(inner, Ball):
        raise InputError(
            "Only a fixed step serves this threat: APGD's steps need LinfBall, L2Ball, L1Ball or "
            f"SoftSignBall, got {type(inner).__name__}."
        )
    return threat  # type: ignore[return-value]


def require_radius(name: str, value: object) -> None:
    """Raise unless value is a finite number >= 0, or a tensor [N] of such."""
    if isinstance(value, Tensor):
        if value.dim() > 1 or not value.is_floating_point():
            raise InputError(
                f"{name} must be a number or a floating-point tensor [N], "
                f"got {value.dtype} of shape {list(value.shape)}."
            )
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError(f"{name} must hold finite numbers >= 0, got a negative or NaN one.")
    else:
        require_nonnegative(name, value)


def like(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A number, or a tensor in x's dtype and on its device."""
    return value.to(x) if isinstance(value, Tensor) else value


def per_image(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A tensor [N] in the shape that broadcasts over x [N, ...]."""
    return value.to(x).reshape(-1, *[1] * (x.dim() - 1)) if isinstance(value, Tensor) else value


def rows_of(value: float | Tensor, index: Tensor) -> float | Tensor:
    """The entries of a tensor [N] at `index`; a number for all images stays one."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    return value[index.to(value.device)]


def draw_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """An uninitialised [N, d] on the device that draws, in a type that draws finely."""
    device = x.device if generator is None else generator.device
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.empty((len(x), x[:1].numel()), device=device, dtype=dtype)
