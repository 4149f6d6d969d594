"""Interpreters by the names that recipes and the command line use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .._utils.errors import InputError
from .._utils.require import require_known_name
from . import (
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    Interpreter,
    Repr,
    SmoothGrad,
)

Make = Callable[[Any], Interpreter]


def ig(model: nn.Module) -> Interpreter:
    """Integrated gradients as in the paper's program: softplus for ReLU, 100 steps."""
    return IntegratedGradients(model, softplus=True)


INTERPRETERS: dict[str, Make] = {
    "cam": CAM,
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "ig": ig,
    "gradient": Gradient,
    "smoothgrad": SmoothGrad,
    "guided-backprop": GuidedBackprop,
    "repr": Repr,
}
CLASS_WISE = tuple(name for name in INTERPRETERS if name != "repr")
"""Those with a map for each class."""


def interpreter_named(name: str, class_wise: bool = False) -> Make:
    """The function that makes an interpreter of a model.

    Args:
        name: a key of `INTERPRETERS`.
        class_wise: whether a map for each class is needed, which "repr" does not have.

    Raises:
        InputError: there is none of that name, or it has no map for a class.
    """
    require_known_name("interpreter", name, INTERPRETERS)
    if class_wise and name not in CLASS_WISE:
        raise InputError(
            f"the interpreter {name} has no map for a class, which is needed here; "
            f"use one of {', '.join(CLASS_WISE)}."
        )
    return INTERPRETERS[name]
