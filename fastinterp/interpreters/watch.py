"""Warnings where maps would not be what a reader takes them for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from .._utils.require import is_readable

TOLERANCE = 1e-6  # a trip through a normalisation and back leaves pixels this far outside [0, 1]
_unwatched: ContextVar[bool] = ContextVar("unwatched", default=False)


@contextmanager
def unwatched() -> Iterator[None]:
    """No warnings for a while: training explains networks in train mode."""
    token = _unwatched.set(True)
    try:
        yield
    finally:
        _unwatched.reset(token)


def warn_of_misuse(who: str, model: nn.Module, x: Tensor) -> None:
    """Warn of pixels outside [0, 1], and of train mode where it changes maps.

    Pixels on a GPU are not read, which would wait for it. The texts have no figures, so that
    Python shows them once.
    """
    if torch.compiler.is_compiling() or _unwatched.get():
        return
    if any(map(_depends_on_mode, model.modules())):
        warnings.warn(
            f"{who}: the network is in train mode, in which dropout or batch normalisation make "
            "maps depend on chance or on the other images; call model.eval() before.",
            stacklevel=3,
        )
    if x.numel() and is_readable(x):
        low, high = (float(value) for value in x.detach().aminmax())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            warnings.warn(
                f"{who}: pixels lie outside [0, 1], as those of normalised images do; pass images "
                "in [0, 1], and put the normalisation inside the model.",
                stacklevel=3,
            )


def _depends_on_mode(module: nn.Module) -> bool:
    """Whether a layer in train mode gives other outputs than in eval mode."""
    if not module.training:
        return False
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return bool(module.track_running_stats)
    chance = getattr(module, "p", 0) if isinstance(module, nn.modules.dropout._DropoutNd) else 0
    return bool(chance) or isinstance(module, nn.RReLU) or bool(getattr(module, "drop_prob", 0))
