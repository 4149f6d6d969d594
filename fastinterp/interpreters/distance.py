"""The distance between the maps of two images, eqs. (3), (4) and (8), and the bound of eq. (5)."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .. import ops
from .._utils.errors import InputError
from .._utils.require import require_integers, require_labels, require_one_of, require_range
from ..ops.discrepancy import REDUCTIONS, Reduction
from .base import Classes, Interpreter, logits_and_maps
from .cam import CAM
from .representation import Repr

ClassSet = Literal["1-class", "2-class", "all-class"]


def map_distance(
    maps: Tensor,
    maps_adv: Tensor,
    p: Literal[1, 2] = 1,
    *,
    squared: bool = False,
    normalized: bool = False,
) -> Tensor:
    """|| L(x, c) - L(x', c) ||_p for each image and class, over all entries of a map.

    Args:
        maps: L(x, .) [N, C', ...].
        maps_adv: L(x', .), the same shape, dtype and device.
        p: 1 or 2.
        squared: for p = 2, the square of the norm (Fig. 2b) instead of the norm (eq. 3).
        normalized: divide each difference by max_j L(x, c)_j - min_j L(x, c)_j, the range of the
            clean image's map of that class (appendix D, the normalised discrepancy score NDS). NaN
            where that map is constant.

    Returns:
        [N, C']. Differentiable; where two maps agree exactly the gradient is 0. Second derivatives
        exist wherever the maps differ.

    Raises:
        InputError: shapes, dtypes or devices differ, or p is not 1 or 2.
    """
    if maps.shape != maps_adv.shape or maps.dim() < 2:
        raise InputError(
            "maps and maps_adv must be [N, C', ...] of one shape, "
            f"got {list(maps.shape)} and {list(maps_adv.shape)}."
        )
    if maps.dtype != maps_adv.dtype or maps.device != maps_adv.device:
        raise InputError(
            "maps and maps_adv must have one dtype and device, got "
            f"{maps.dtype}, {maps.device} and {maps_adv.dtype}, {maps_adv.device}."
        )
    require_one_of("p", p, (1, 2))
    if squared and p != 2:
        raise InputError("squared is for p = 2; leave it out for p = 1.")
    clean = maps.flatten(2) if maps.dim() > 2 else maps[..., None]
    difference = maps_adv.reshape(clean.shape) - clean  # [N, C', entries of a map]
    if normalized:
        value_range = clean.amax(dim=2, keepdim=True) - clean.amin(dim=2, keepdim=True)
        difference = difference / torch.where(value_range > 0, value_range, torch.nan)
    if p == 1:
        return difference.abs().sum(dim=2)
    if squared:
        return difference.square().sum(dim=2)
    return torch.linalg.vector_norm(difference, dim=2)  # type: ignore[no-any-return]


def class_set(kind: ClassSet, labels: Tensor | None, targets: Tensor | None) -> Classes:
    """The classes of eq. (3), in the form that interpreters take.

    "1-class" is the true class, [N, 1]; "2-class" the true and the target class, [N, 2];
    "all-class" every class.

    Raises:
        InputError: an unknown kind, or labels or targets that it needs are missing or no integer
            tensors [N].
    """
    require_one_of("classes", kind, get_args(ClassSet))
    if kind == "all-class":
        return None
    given = {"labels": labels} if kind == "1-class" else {"labels": labels, "targets": targets}
    ids: list[Tensor] = []
    for name, values in given.items():
        if values is None:
            raise InputError(f'classes="{kind}" needs {name}, an integer tensor [N].')
        ids.append(require_integers(name, values))
        if ids[-1].dim() != 1 or ids[-1].shape != ids[0].shape:
            shapes = " and ".join(str(list(each.shape)) for each in ids)
            raise InputError(f"{' and '.join(given)} must have shape [N], got {shapes}.")
    return torch.stack(ids, dim=1)


def interpretability_discrepancy(
    interpreter: Interpreter,
    x: Tensor,
    x_adv: Tensor,
    labels: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    classes: ClassSet = "2-class",
    p: Literal[1, 2] = 1,
    squared: bool = False,
    normalized: bool = False,
) -> Tensor:
    """Interpretability discrepancy of eq. (3): the distance of maps, averaged over the classes.

    With the defaults this is eq. (4), the l1 2-class discrepancy. For `Repr`, whose maps belong to
    no class, the average is over its K channels.

    Args:
        interpreter: any interpreter.
        x: clean images [N, C_in, H, W].
        x_adv: perturbed images, the same shape.
        labels: t [N], integers; needed for "1-class" and "2-class".
        targets: t' [N], integers; needed for "2-class".
        classes: the set of classes, see `class_set`.
        p, squared, normalized: see `map_distance`.

    Returns:
        D [N].

    Raises:
        InputError: as `class_set`, `map_distance` or the interpreter say.
    """
    wanted = class_set(classes, labels, targets)
    maps, maps_adv = interpreter(x, wanted), interpreter(x_adv, wanted)
    return map_distance(maps, maps_adv, p, squared=squared, normalized=normalized).mean(dim=1)


def weighted_map_distance(
    maps: Tensor,
    maps_adv: Tensor,
    logits_adv: Tensor,
    labels: Tensor,
    reduction: Reduction = "weighted",
    *,
    validate: bool = True,
) -> Tensor:
    """Eq. (8) from maps of every class: no target class is needed.

    D = 1/2 S_t + 1/2 sum_{i != t} p_i S_i, where S_i = || L(x, i) - L(x', i) ||_1 and p is the
    softmax of the logits at x' over the classes other than t. The gradient flows through p.
    "1-class" is S_t.

    Args:
        maps: L(x, .) of all classes, [N, C, ...], C >= 2.
        maps_adv: L(x', .), the same shape.
        logits_adv: f(x') [N, C].
        labels: t [N], integers.
        reduction: "weighted" or "1-class".
        validate: check the labels' range; on a GPU the check waits for the device.

    Returns:
        D [N].

    Raises:
        InputError: shapes, dtypes, labels or reduction do not fit.
    """
    require_one_of("reduction", reduction, REDUCTIONS)
    if logits_adv.shape != maps.shape[:2] or maps.shape[1] < 2:
        raise InputError(
            "eq. (8) needs maps [N, C, ...] of all C >= 2 classes and logits [N, C], "
            f"got {list(maps.shape)} and {list(logits_adv.shape)}."
        )
    labels = require_labels("eq. (8)", "labels", labels, logits_adv)
    if validate and not torch.compiler.is_compiling():
        require_range("eq. (8)", "labels", labels, maps.shape[1])
    by_class = map_distance(maps, maps_adv)  # [N, C]
    true_class = by_class.gather(1, labels[:, None]).squeeze(1)
    if reduction == "1-class":
        return true_class
    is_true = torch.zeros_like(logits_adv, dtype=torch.bool).scatter(1, labels[:, None], True)
    others = logits_adv.masked_fill(is_true, -torch.inf).softmax(dim=1)
    return 0.5 * true_class + 0.5 * (others * by_class).sum(dim=1)


def weighted_discrepancy(
    interpreter: Interpreter,
    x: Tensor,
    x_adv: Tensor,
    labels: Tensor,
    *,
    reduction: Reduction = "weighted",
) -> Tensor:
    """Eq. (8) between images: the target label-free discrepancy that Int training minimises.

    For `CAM` this is the fused op; the maps of other interpreters are compared in plain torch.

    Args:
        interpreter: any interpreter with a map for each class.
        x: clean images [N, C_in, H, W].
        x_adv: perturbed images, the same shape.
        labels: t [N], integers.
        reduction: "weighted" (eq. 8), or "1-class" for || L(x, t) - L(x', t) ||_1.

    Returns:
        D [N].

    Raises:
        InputError: `Repr`, whose maps belong to no class; or as `weighted_map_distance` says.
    """
    if isinstance(interpreter, Repr):
        raise InputError(
            "eq. (8) weights classes and Repr has none; use interpretability_discrepancy() instead."
        )
    if isinstance(interpreter, CAM):
        model = interpreter.model
        return ops.discrepancy(
            model.features(x),
            model.features(x_adv),
            model.weight,
            labels,
            bias=model.bias,
            reduction=reduction,
        )
    if reduction == "1-class":
        return interpretability_discrepancy(interpreter, x, x_adv, labels, classes="1-class")
    logits_adv, maps_adv = logits_and_maps(interpreter, x_adv)
    return weighted_map_distance(interpreter(x), maps_adv, logits_adv, labels, reduction)


class MarginBound(NamedTuple):
    """Proposition 1, image by image; every field is [N]."""

    labels: Tensor
    """t, the class of x."""
    targets: Tensor
    """t', the prediction at x'."""
    margin: Tensor
    """f_t(x) - f_t'(x)."""
    discrepancy: Tensor
    """D of eq. (4) between x and x' for t and t'; Proposition 1 says D >= margin / 2."""

    @property
    def fooled(self) -> Tensor:
        """Whether the prediction at x' is not t; elsewhere the bound is trivial."""
        return self.labels != self.targets

    @property
    def tightness(self) -> Tensor:
        """(margin / 2) / D, at most 1 by Proposition 1; NaN where D is 0."""
        return torch.where(self.discrepancy > 0, self.margin / (2 * self.discrepancy), torch.nan)


@torch.no_grad()
def margin_bound(
    interpreter: Interpreter, x: Tensor, x_adv: Tensor, labels: Tensor | None = None
) -> MarginBound:
    """The classification margin against the discrepancy, eq. (5), for each image.

    The bound D >= (f_t(x) - f_t'(x)) / 2 is a theorem for complete interpreters: `CAM`, `GradCAM`
    on networks with a linear head, and `IntegratedGradients` without softplus up to the error of
    its Riemann sum. A bias of the classifier cancels. For other interpreters it need not hold.

    Args:
        interpreter: any interpreter with a map for each class.
        x: clean images [N, C_in, H, W].
        x_adv: adversarial images, the same shape.
        labels: t [N], integers; by default the prediction at x, as in Proposition 1. The bound
            holds for any t.

    Returns:
        A `MarginBound`, without a graph.

    Raises:
        InputError: `Repr`, whose maps belong to no class; or as the interpreter says.
    """
    if isinstance(interpreter, Repr):
        raise InputError("Proposition 1 needs maps of classes and Repr has none; use CAM.")
    logits = interpreter.model(x)  # [N, C]
    targets = interpreter.model(x_adv).argmax(dim=1)
    if labels is None:
        labels = logits.argmax(dim=1)
    labels = require_labels("margin_bound", "labels", labels, x)
    distance = interpretability_discrepancy(interpreter, x, x_adv, labels, targets)
    both = logits.gather(1, torch.stack([labels, targets], dim=1))  # the labels are checked by now
    return MarginBound(labels, targets, both[:, 0] - both[:, 1], distance)
