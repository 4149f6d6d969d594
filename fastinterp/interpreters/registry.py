"""Interpreters by name, as recipes and the command line know them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from .._utils.errors import InputError
from ..models import GapClassifier
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

Make = Callable[[GapClassifier], Interpreter]


def ig(model: GapClassifier) -> Interpreter:
    """Integrated gradients as the paper's program had them: softplus for ReLU, 100 steps."""
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
        class_wise: whether a map for each class is needed, which "repr" has not.

    Raises:
        InputError: there is none of that name, or it has no map for a class.
    """
    if not isinstance(name, str):
        raise InputError(f'an interpreter is given by its name, such as "cam", got {name!r}.')
    if class_wise and name == "repr":
        raise InputError(
            "the interpreter repr has no map for a class, which is needed here; "
            f"take one of {', '.join(CLASS_WISE)}."
        )
    if name not in INTERPRETERS:
        near = get_close_matches(name, INTERPRETERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(INTERPRETERS)}."
        raise InputError(f"There is no interpreter {name!r}; {hint}")
    return INTERPRETERS[name]
