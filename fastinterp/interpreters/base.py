"""What an interpreter is, and which classes it is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_integers, require_range, require_whole
from ..models.gap import GapClassifier, require_fit

Classes: TypeAlias = int | Sequence[int] | Tensor | None
"""Which classes are wanted. The type decides, never the values:

- None: every class, in order; C' = C.
- int or a sequence of ints: the same classes for each image of the batch; C' = 1 or its length.
- integer tensor [N]: one class for each image; C' = 1.
- integer tensor [N, C']: C' classes for each image.

A tensor is always per image: for shared classes that lie in a tensor, pass `tensor.tolist()`. An
array of numpy is refused, as either could be meant.
"""


@runtime_checkable
class Interpreter(Protocol):
    """Images -> maps that say where each class finds its evidence.

    The maps are raw (no ReLU, no upsampling, no scaling), on x's device, and carry an autograd
    graph exactly when torch would make one: grad mode is on and x or a parameter requires grad.
    The network is used in the mode (train or eval) that it is in, and left as it was.
    """

    model: GapClassifier

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W], classes as in `Classes` -> maps [N, C', ...]."""
        ...


@runtime_checkable
class FeatureInterpreter(Interpreter, Protocol):
    """An interpreter that needs no more than the feature maps, so that they can be shared."""

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', ...]."""
        ...


def logits_and_maps(
    interpreter: Interpreter, x: Tensor, classes: Classes = None
) -> tuple[Tensor, Tensor]:
    """Logits [N, C] and maps [N, C', ...] of images x, from one forward pass where possible."""
    model = interpreter.model
    require_fit("logits_and_maps", model, x)
    if isinstance(interpreter, FeatureInterpreter):
        features = model.features(x)
        return model.logits(features), interpreter.from_features(features, classes)
    return model(x), interpreter(x, classes)


def class_index(
    classes: Classes, count: int, num_classes: int, device: torch.device, *, validate: bool = True
) -> Tensor | None:
    """Class ids as a tensor: [C'] for shared classes, [N, C'] for classes per image.

    Args:
        classes: see `Classes`.
        count: N, the number of images.
        num_classes: C.
        device: where the maps are made.
        validate: check the values of a tensor. On a GPU the check waits for the device; loops that
            checked their classes before pass False.

    Returns:
        The ids on `device`; None where all classes are wanted.

    Raises:
        InputError: a class outside 0..C-1, or something that is not as `Classes` says.
    """
    if classes is None:
        return None
    if not isinstance(classes, Tensor):
        return torch.tensor(_shared(classes, num_classes), dtype=torch.int64, device=device)
    classes = require_integers("classes", classes)
    if classes.dim() not in (1, 2) or classes.shape[0] != count:
        raise InputError(
            f"a tensor of classes must have shape [N] or [N, C'] with N = {count}, got "
            f"{list(classes.shape)}; for the same classes in every image pass a list of ints."
        )
    if classes.dim() == 2 and classes.shape[1] == 0:
        raise InputError("classes [N, C'] needs at least one class an image, got C' = 0.")
    if classes.device != device:
        raise InputError(
            f"classes and images must be on the same device, got {classes.device} and {device}."
        )
    if validate and _may_read(classes):
        require_range("interpreter", "classes", classes, num_classes)
    return classes if classes.dim() == 2 else classes[:, None]


def _shared(classes: int | Sequence[int], num_classes: int) -> list[int]:
    if isinstance(classes, np.ndarray):
        raise InputError(
            "classes must not be an array: pass torch.from_numpy(classes) for a class an image, "
            "or classes.tolist() for the same classes in every image."
        )
    if not isinstance(classes, (Integral, Sequence)):
        raise InputError(
            "classes must be None, an int, a sequence of ints or an integer tensor, "
            f"got {type(classes).__name__}."
        )
    ids = [require_whole("a class", one) for one in _listed(classes)]
    for one in ids:
        if not 0 <= one < num_classes:
            raise InputError(f"classes must lie in 0..{num_classes - 1}, got {one}.")
    if not ids:
        raise InputError("classes is empty; pass at least one class, or None for all of them.")
    return ids


def _listed(classes: int | Sequence[int]) -> Sequence[int]:
    return classes if isinstance(classes, Sequence) else [classes]


def _may_read(tensor: Tensor) -> bool:
    """Values cannot be looked at while torch.compile traces or a CUDA graph is captured."""
    if torch.compiler.is_compiling():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def pick(scores: Tensor, index: Tensor | None) -> Tensor:
    """Scores [N, C, ...] and ids from `class_index` -> those of the wanted classes [N, C', ...]."""
    if index is None:
        return scores
    if index.dim() == 1:
        return scores[:, index]
    index = index.view(index.shape + (1,) * (scores.dim() - 2))
    return scores.gather(1, index.expand(-1, -1, *scores.shape[2:]))
