"""Objectives on the maps of any interpreter: their distance, and their brightest positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_number, require_one_of
from ..interpreters import CAM, Classes, GradCAM, GradCAMPlusPlus, Interpreter, Repr
from ..interpreters.base import FeatureInterpreter
from ..interpreters.distance import map_distance, weighted_map_distance
from ..ops.discrepancy import Reduction
from .objectives import Objective, Units, Value, require_objective
from .outputs import Outputs

MakeInterpreter = Callable[[Any], Interpreter]


def map_reader(interpreter: Interpreter, classes: Classes) -> Callable[[Outputs], Tensor]:
    """Outputs of a batch -> its maps [N, C', ...], from their own pass where that is enough."""
    if isinstance(interpreter, FeatureInterpreter):
        from_features = interpreter.from_features
        return lambda outputs: from_features(outputs.features, classes, validate=False)
    return lambda outputs: interpreter(outputs.x, classes)


def require_same_model(who: str, model: nn.Module, interpreter: Interpreter) -> None:
    """Raise unless the interpreter explains the model that is attacked."""
    if getattr(interpreter, "model", None) is model:
        return
    if isinstance(interpreter, type) or not isinstance(interpreter, Interpreter):
        name = interpreter.__name__ if isinstance(interpreter, type) else repr(interpreter)
        raise InputError(
            f"{who}: the interpreter must be made of the model, as in CAM(model), got {name}."
        )
    raise InputError(
        f"{who}: the interpreter must explain the model that is attacked; "
        "make it of the same object."
    )


class MapDistance(Objective):
    """Eq. (3): the distance of the maps at x and x', averaged over classes.

    Args:
        interpreter: of the model that is attacked.
        classes: for each image, int64 [N, C']; None: all of them.
        p: 1 or 2.
        squared: for p = 2, the square of the norm.
        maps: the clean maps [N, C', ...], if known already.

    Raises:
        InputError: p is not 1 or 2, or squared is given with p = 1.
    """

    flat_at_x = True

    def __init__(
        self,
        interpreter: Interpreter,
        classes: Tensor | None,
        p: Literal[1, 2] = 1,
        *,
        squared: bool = False,
        maps: Tensor | None = None,
    ) -> None:
        require_one_of("MapDistance: p", p, (1, 2))
        if squared and p != 2:
            raise InputError("MapDistance: squared is for p = 2; leave it out for p = 1.")
        self.interpreter = interpreter
        self.classes = classes
        self.p: Literal[1, 2] = p
        self.squared = squared
        self.maps = maps

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        read = map_reader(self.interpreter, self.classes)
        maps = read(clean) if self.maps is None else self.maps

        def value(adv: Outputs) -> Tensor:
            return map_distance(maps, read(adv), self.p, squared=self.squared).mean(dim=1)

        return value

    def rows(self, index: Tensor) -> Objective:
        return MapDistance(
            self.interpreter,
            None if self.classes is None else self.classes[index],
            self.p,
            squared=self.squared,
            maps=None if self.maps is None else self.maps[index],
        )


class MapDiscrepancy(Objective):
    """Eq. (8), or its 1-class form, with any interpreter; `Discrepancy` is the fused one for CAM.

    Args:
        make_interpreter: the model -> its interpreter, with a map for each class.
        reduction: "weighted" (eq. 8) or "1-class" (the true class's map alone).
        units: "paper" takes eq. (8) literally. "release" leaves out its 1/2, and the 1/u of CAM,
            GradCAM and GradCAM++; see `Discrepancy`.

    Raises:
        InputError: an unknown reduction or unit, or nothing that makes an interpreter.
    """

    flat_at_x = True

    def __init__(
        self,
        make_interpreter: MakeInterpreter,
        reduction: Reduction = "weighted",
        units: Units = "paper",
    ) -> None:
        made = isinstance(make_interpreter, Interpreter) and not isinstance(make_interpreter, type)
        if made or not callable(make_interpreter):
            raise InputError(
                "MapDiscrepancy: make_interpreter must be a function that makes an interpreter of "
                f"the model, such as the class GradCAM, got a {type(make_interpreter).__name__}."
            )
        self.make_interpreter = make_interpreter
        self.reduction = require_one_of("MapDiscrepancy: reduction", reduction, get_args(Reduction))
        self.units = require_one_of("MapDiscrepancy: units", units, get_args(Units))

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        interpreter = self.make_interpreter(clean.model)
        require_same_model("MapDiscrepancy", clean.model, interpreter)
        if isinstance(interpreter, Repr):
            raise InputError("eq. (8) weights classes and Repr has none; use another interpreter.")
        weighted = self.reduction == "weighted"
        read = map_reader(interpreter, None if weighted else labels[:, None])
        maps = read(clean)
        scale = 1.0
        if self.units == "release":
            scale = release_scale(interpreter, maps, 1) * (2 if weighted else 1)

        def value(adv: Outputs) -> Tensor:
            maps_adv = read(adv)
            if weighted:
                d = weighted_map_distance(maps, maps_adv, adv.logits, labels, validate=False)
            else:
                d = map_distance(maps, maps_adv).squeeze(1)
            return scale * d

        return value


class TopK(Objective):
    """Minus the sum of the true class's map at x' over the k largest positions of the clean map.

    An attack that increases it lowers the map where the clean map is largest (Ghorbani et al.,
    2019).

    Args:
        interpreter: of the model that is attacked.
        k: how many positions; all channels of a map count together.

    Raises:
        InputError: k is no whole number from 1 up.
    """

    def __init__(self, interpreter: Interpreter, k: int = 8) -> None:
        self.interpreter = interpreter
        self.k = require_count("TopK: k", k)

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        read = map_reader(self.interpreter, labels[:, None])
        maps = _flat(read(clean))
        if self.k > maps.shape[1]:
            raise InputError(
                f"TopK: k must be at most the {maps.shape[1]} positions of a map, got {self.k}."
            )
        top = maps.topk(self.k, dim=1).indices  # [N, k]

        def value(adv: Outputs) -> Tensor:
            return -_flat(read(adv)).gather(1, top).sum(dim=1)

        return value


class Capped(Objective):
    """min(value of the term, cap): above the cap the gradient is zero.

    `Capped(Margin(targeted=True), 0)` is minus the hinge of eq. (7), and with cap 0.1 and the
    targets as labels minus the first term of eq. (6).
    """

    def __init__(self, term: Objective, cap: float) -> None:
        require_objective("Capped: term", term)
        require_number("Capped: cap", cap)
        self.term = term
        self.cap = cap
        self.flat_at_x, self.needs = term.flat_at_x, term.needs

    def prepare(self, clean: Outputs, labels: Tensor) -> Value:
        inner, cap = self.term.prepare(clean, labels), self.cap

        def value(adv: Outputs) -> Tensor:
            return inner(adv).clamp(max=cap)

        return value

    def rows(self, index: Tensor) -> Objective:
        return Capped(self.term.rows(index), self.cap)


def _flat(maps: Tensor) -> Tensor:
    """Maps of one class [N, 1, ...] -> [N, entries]."""
    if maps.shape[1] != 1:
        raise InputError(
            "a top-k attack needs one map for the true class, "
            f"and this interpreter gives {maps.shape[1]}."
        )
    flat: Tensor = maps.flatten(1)
    return flat


def release_scale(interpreter: Interpreter, maps: Tensor, p: Literal[1, 2]) -> float:
    """The factor from eq. (3), squared for l2, to the units of the authors' program.

    Their CAM, GradCAM and GradCAM++ leave out the 1/u of eq. (1), and their distance of
    representations sums over channels where eq. (3) takes the mean. Other maps are the same.

    Args:
        maps: of the interpreter, [N, C', ...].
    """
    if isinstance(interpreter, Repr):
        return float(maps.shape[1])
    if isinstance(interpreter, (CAM, GradCAM, GradCAMPlusPlus)):
        positions = maps[0, 0].numel() if len(maps) else 1
        return float(positions**p)
    return 1.0
