"""How far explanations move under random perturbations: sensitivity, Lipschitz, relative stability.

Each function takes what S perturbed images x_s of each of N images gave, and returns a score [N];
lower is better. The formulas are those of Quantus (Hedstroem et al., 2023), with Euclidean norms.
`stability` draws the perturbed images and computes them all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_positive
from ..attacks import SeededStart
from ..attacks.checks import require_pixel_eps
from ..attacks.modes import eval_mode
from ..attacks.seeds import start_seeds
from ..attacks.threats import LinfBall
from ..interpreters import FeatureInterpreter, Interpreter
from ..models.gap import GapClassifier, device_of
from .measuring import all_batches, in_batches, progress_bar, require_measurable

FLOOR = 1e-6  # Quantus's: stands for a zero that something is divided by


class Stability(NamedTuple):
    """Scores of N images, float64 on the CPU. NaN where no sample kept the prediction."""

    max_sensitivity: Tensor
    average_sensitivity: Tensor
    local_lipschitz: Tensor
    relative_input_stability: Tensor
    relative_output_stability: Tensor
    relative_representation_stability: Tensor
    kept: Tensor
    """int64 [N], how many samples kept the prediction; only these count."""


def max_sensitivity(maps: Tensor, maps_adv: Tensor) -> Tensor:
    """max_s || L(x_s) - L(x) || / || L(x) ||.

    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, without the
    division; Bhatt et al., "Evaluating and aggregating feature-based model explanations", IJCAI
    2020.

    Args:
        maps: L(x) [N, ...].
        maps_adv: L(x_s) [S, N, ...].

    Raises:
        InputError: the shapes do not fit.
    """
    return _sensitivity(maps, maps_adv).amax(dim=0)


def average_sensitivity(maps: Tensor, maps_adv: Tensor) -> Tensor:
    """The mean over s of what `max_sensitivity` takes the maximum of (the same sources)."""
    return _sensitivity(maps, maps_adv).mean(dim=0)


def local_lipschitz(maps: Tensor, maps_adv: Tensor, x: Tensor, x_adv: Tensor) -> Tensor:
    """max_s || L(x_s) - L(x) || / || x_s - x ||, an estimate of the local Lipschitz constant.

    Alvarez-Melis and Jaakkola, "On the robustness of interpretability methods", 2018.

    Args:
        maps, x: L(x) and x [N, ...].
        maps_adv, x_adv: L(x_s) and x_s [S, N, ...].
    """
    moved = _norm(_moved("maps", maps, maps_adv))
    return (moved / _norm(_moved("x", x, x_adv))).amax(dim=0)


def relative_input_stability(maps: Tensor, maps_adv: Tensor, x: Tensor, x_adv: Tensor) -> Tensor:
    """max_s || (L(x) - L(x_s)) / L(x) || / max(|| (x - x_s) / x ||, FLOOR).

    Agarwal et al., "Rethinking stability for attribution-based explanations", 2022, eq. (2). A
    value of exactly 0 in L(x) or x is replaced by FLOOR where it divides, as in Quantus.

    Args:
        maps, x: L(x) and x [N, ...].
        maps_adv, x_adv: L(x_s) and x_s [S, N, ...].
    """
    return _stability(maps, maps_adv, _relative("x", x, x_adv))


def relative_output_stability(
    maps: Tensor, maps_adv: Tensor, logits: Tensor, logits_adv: Tensor
) -> Tensor:
    """max_s || (L(x) - L(x_s)) / L(x) || / max(|| f(x) - f(x_s) ||, FLOOR), f being the logits.

    Agarwal et al., 2022, eq. (5); see `relative_input_stability`.

    Args:
        maps, logits: L(x) and f(x) [N, ...].
        maps_adv, logits_adv: L(x_s) and f(x_s) [S, N, ...].
    """
    return _stability(maps, maps_adv, _moved("logits", logits, logits_adv))


def relative_representation_stability(
    maps: Tensor, maps_adv: Tensor, features: Tensor, features_adv: Tensor
) -> Tensor:
    """max_s || (L(x) - L(x_s)) / L(x) || / max(|| (A(x) - A(x_s)) / A(x) ||, FLOOR).

    Agarwal et al., 2022, eq. (3); see `relative_input_stability`.

    Args:
        maps, features: L(x) and A(x), any inner representation, [N, ...].
        maps_adv, features_adv: L(x_s) and A(x_s) [S, N, ...].
    """
    return _stability(maps, maps_adv, _relative("features", features, features_adv))


@torch.no_grad()
def stability(
    model: nn.Module,
    interpreter: Interpreter,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.1,
    samples: int = 50,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Stability:
    """All six scores of the true class's maps, under uniform noise in the linf ball.

    Samples that change the prediction do not count. The representation is the network's features;
    for one that is no GapClassifier the score of the representation is NaN.

    Args:
        model: images in [0, 1] -> logits.
        interpreter: explains the same model.
        images: x [N, C_in, H, W] in [0, 1]; moved to the model batch by batch.
        labels: true classes [N].
        eps: radius of the ball around x; perturbed images are clipped to [0, 1].
        samples: S.
        batch_size: images at a time; it changes memory and speed, not the result.
        seed: of the noise, which depends on the image alone and not on its batch.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: images, labels or a setting do not fit.
    """
    labels = require_measurable("stability", model, images, labels, batch_size)
    require_pixel_eps("stability", "linf", require_positive("eps", eps))
    require_count("samples", samples)
    require_count("seed", seed, 0)
    parts = []
    with eval_mode(model), progress_bar(samples * len(images), "img", progress) as bar:
        for _, (x, y) in in_batches(batch_size, device_of(model, images), images, labels):
            clean = _look(model, interpreter, x, y)
            ratios, same = [], []
            for number in range(samples):
                seeds = start_seeds(x, seed, f"stability {number}")
                x_adv = SeededStart(LinfBall(eps, 0.0), seeds).init(x, True, None)
                moved = _look(model, interpreter, x_adv, y)
                ratios.append(_scores(x, clean, x_adv, moved))
                same.append(clean[1].argmax(dim=1) == moved[1].argmax(dim=1))
                bar.update(len(x))
            parts.append((torch.stack(ratios).cpu(), torch.stack(same).cpu()))
    scores, kept = (torch.cat(each, dim=-1) for each in zip(*all_batches(parts), strict=True))
    count = kept.sum(dim=0)  # [N]
    counted = kept[:, None].expand_as(scores)  # [S, 5, N]
    highest = scores.masked_fill(~counted, -torch.inf).amax(dim=0)
    highest = highest.where(count > 0, torch.nan)
    average = scores[:, 0].where(kept, 0).sum(dim=0) / count
    first, lipschitz, inputs, outputs, inner = highest.unbind(0)
    return Stability(first, average, lipschitz, inputs, outputs, inner, count)


def _look(
    model: nn.Module, interpreter: Interpreter, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of y, logits and features of images x, in float64."""
    if not isinstance(model, GapClassifier):
        logits: Tensor = model(x)
        nothing = logits.new_full((len(x), 1), torch.nan)
        return interpreter(x, y[:, None]).double(), logits.double(), nothing.double()
    features = model.features(x)
    if isinstance(interpreter, FeatureInterpreter):
        maps = interpreter.from_features(features, y[:, None])
    else:
        maps = interpreter(x, y[:, None])
    return maps.double(), model.logits(features).double(), features.double()


def _scores(
    x: Tensor, clean: tuple[Tensor, ...], x_adv: Tensor, moved: tuple[Tensor, ...]
) -> Tensor:
    """The five ratios of one sample, [5, N]."""
    maps, logits, features = clean
    maps_adv, logits_adv, features_adv = (each[None] for each in moved)
    x, x_adv = x.double(), x_adv.double()[None]
    return torch.stack(
        [
            max_sensitivity(maps, maps_adv),
            local_lipschitz(maps, maps_adv, x, x_adv),
            relative_input_stability(maps, maps_adv, x, x_adv),
            relative_output_stability(maps, maps_adv, logits, logits_adv),
            relative_representation_stability(maps, maps_adv, features, features_adv),
        ]
    )


def _moved(name: str, clean: Tensor, moved: Tensor) -> Tensor:
    """moved - clean, [S, N, ...]."""
    if clean.dim() < 2 or moved.shape[1:] != clean.shape or len(moved) == 0:
        raise InputError(
            f"{name} must be [N, ...] and of the perturbed images [S, N, ...] with S >= 1, "
            f"got {list(clean.shape)} and {list(moved.shape)}."
        )
    return moved - clean


def _relative(name: str, clean: Tensor, moved: Tensor) -> Tensor:
    return _moved(name, clean, moved) / torch.where(clean == 0, FLOOR, clean)


def _norm(values: Tensor) -> Tensor:
    """[S, N, ...] -> [S, N]."""
    norm: Tensor = torch.linalg.vector_norm(values.flatten(2), dim=2)
    return norm


def _sensitivity(maps: Tensor, maps_adv: Tensor) -> Tensor:
    return _norm(_moved("maps", maps, maps_adv)) / _norm(maps[None])


def _stability(maps: Tensor, maps_adv: Tensor, change: Tensor) -> Tensor:
    return (_norm(_relative("maps", maps, maps_adv)) / _norm(change).clamp(min=FLOOR)).amax(dim=0)
