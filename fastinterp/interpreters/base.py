"""What an interpreter is, and the classes that it explains."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.described import Described
from .._utils.errors import InputError
from .._utils.require import require_integers, require_range, require_whole
from ..models.gap import GapClassifier, require_fit, require_gap
from .watch import warn_of_misuse

Classes: TypeAlias = int | Sequence[int] | Tensor | None
"""Which classes are wanted. The type decides, never the values:

- None: every class, in order; C' = C.
- int or a sequence of ints: the same classes for each image of the batch; C' = 1 or its length.
- integer tensor [N]: one class for each image; C' = 1.
- integer tensor [N, C']: C' classes for each image.

A tensor is always per image; for the same classes in every image pass `tensor.tolist()`. A NumPy
array is refused, because it could mean either.
"""


@runtime_checkable
class Interpreter(Protocol):
    """Images -> maps of the evidence for each class.

    The maps are raw (no ReLU, no upsampling, no scaling), on x's device, and carry an autograd
    graph exactly when torch would make one: grad mode is on and x or a parameter requires grad.
    The network is used in the mode (train or eval) that it is in, and left as it was.
    """

    @property
    def model(self) -> nn.Module:
        """The network that is explained."""

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W], classes as in `Classes` -> maps [N, C', ...]."""
        ...


@runtime_checkable
class FeatureInterpreter(Interpreter, Protocol):
    """An interpreter that needs only the feature maps, so that one forward pass can be shared."""

    @property
    def model(self) -> GapClassifier:
        """The network that is explained."""

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', ...].

        With `validate=False` the values of a tensor of classes are not checked; on a GPU the check
        waits for the device.
        """
        ...


class FeatureMaps(Described):
    """Base of the interpreters that are a `FeatureInterpreter`; a subclass writes `_maps`."""

    def __init__(self, model: GapClassifier) -> None:
        require_gap(type(self).__name__, model)
        self.model = model

    def __call__(self, x: Tensor, classes: Classes = None) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> maps [N, C', h, w]; `classes` as in `Classes`."""
        require_fit(type(self).__name__, self.model, x)
        warn_of_misuse(type(self).__name__, self.model, x)
        return self.from_features(self.model.features(x), classes)

    def from_features(
        self, features: Tensor, classes: Classes = None, *, validate: bool = True
    ) -> Tensor:
        """Feature maps A [N, K, h, w] -> maps [N, C', h, w], see `FeatureInterpreter`."""
        return self._maps(features, class_index(classes, features, self.model, validate=validate))

    def _maps(self, features: Tensor, index: Tensor | None) -> Tensor:
        """A [N, K, h, w] and ids from `class_index` -> maps [N, C', h, w]."""
        raise NotImplementedError


def logits_and_maps(
    interpreter: Interpreter, x: Tensor, classes: Classes = None
) -> tuple[Tensor, Tensor]:
    """Logits [N, C] and maps [N, C', ...] of images x, from one forward pass where possible."""
    model = interpreter.model
    require_fit("logits_and_maps", model, x)
    warn_of_misuse("logits_and_maps", model, x)
    if isinstance(interpreter, FeatureInterpreter):
        gap = interpreter.model
        features = gap.features(x)
        return gap.logits(features), interpreter.from_features(features, classes)
    return model(x), interpreter(x, classes)


def class_index(
    classes: Classes, batch: Tensor, model: nn.Module, *, validate: bool = True
) -> Tensor | None:
    """Class ids as a tensor: [C'] for shared classes, [N, C'] for classes per image.

    Args:
        classes: see `Classes`.
        batch: the N images, or their feature maps.
        model: whose classes they are; if it is no GapClassifier, only `pick` can tell how many.
        validate: check the values of a tensor; on a GPU the check waits for the device.

    Returns:
        The ids on the batch's device; None where all classes are wanted.

    Raises:
        InputError: a class outside 0..C-1, or something that is not as `Classes` says.
    """
    if classes is None:
        return None
    count = model.num_classes if isinstance(model, GapClassifier) else None
    if not isinstance(classes, Tensor):
        return torch.tensor(_shared(classes, count), dtype=torch.int64, device=batch.device)
    classes = require_integers("classes", classes)
    if classes.dim() not in (1, 2) or len(classes) != len(batch) or 0 in classes.shape[1:]:
        raise InputError(
            f"a tensor of classes must have shape [N] or [N, C'] with N = {len(batch)} and C' >= 1,"
            f" got {list(classes.shape)}; for the same classes in every image pass a list of ints."
        )
    if classes.device != batch.device:
        raise InputError(
            "classes and images must be on the same device, "
            f"got {classes.device} and {batch.device}."
        )
    if count is not None and validate and _may_read(classes):
        require_range("interpreter", "classes", classes, count)
    return classes if classes.dim() == 2 else classes[:, None]


def _shared(classes: int | Sequence[int], num_classes: int | None) -> list[int]:
    """The same classes for each image, as a checked list."""
    if isinstance(classes, np.ndarray) or not isinstance(classes, (Integral, Sequence)):
        raise InputError(
            "classes must be None, an int, a sequence of ints or an integer tensor, "
            f"got {type(classes).__name__}; make an array a tensor for one class an image, or a "
            "list for the same classes in every image."
        )
    listed = classes if isinstance(classes, Sequence) else [classes]
    ids = [require_whole("a class", one) for one in listed]
    most = max(ids, default=0) + 1 if num_classes is None else num_classes
    if not ids or not all(0 <= one < most for one in ids):
        raise InputError(
            f"classes must be at least one of 0..{most - 1}, got {ids}; None means all of them."
        )
    return ids


def _may_read(tensor: Tensor) -> bool:
    """Values cannot be read while torch.compile traces or a CUDA graph is captured."""
    if torch.compiler.is_compiling():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def pick(scores: Tensor, index: Tensor | None, model: nn.Module | None = None) -> Tensor:
    """Scores [N, C] and ids from `class_index` -> those of the wanted classes [N, C'].

    Args:
        model: gave the scores; if it is no GapClassifier, they and the ids are checked here.

    Raises:
        InputError: the model gave no logits [N, C], or one of the ids is no class of its own.
    """
    if model is not None and not isinstance(model, GapClassifier):
        _require_logits(type(model).__name__, scores)
        if index is not None and _may_read(index):
            require_range("interpreter", "classes", index, scores.shape[1])
    if index is None:
        return scores
    if index.is_inference() and not torch.is_inference_mode_enabled():
        index = index.clone()  # autograd cannot save a tensor of inference mode
    return scores[:, index] if index.dim() == 1 else scores.gather(1, index)


def _require_logits(who: str, logits: object) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        shown = (
            f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        )
        raise InputError(f"{who} must give logits [N, C] as a tensor, got {shown}.")
