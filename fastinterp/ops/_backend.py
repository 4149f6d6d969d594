"""Which implementation serves an op: the compiled kernels or plain torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from functools import cache
from typing import Any

import torch
from torch.autograd import forward_ad

from .._utils.errors import InputError
from .._utils.require import require_one_of


@cache
def extension() -> Any | None:
    """The compiled module `fastinterp._C`, or None where nothing was built.

    Raises:
        ImportError: it was built but does not load; plain torch would be slow without a word.
    """
    if importlib.util.find_spec("fastinterp._C") is None:
        return None
    try:
        return importlib.import_module("fastinterp._C")
    except ImportError as error:
        raise ImportError(
            "fastinterp's compiled kernels were built but do not load, most often because torch "
            f"changed since (now {torch.__version__}); rebuild them with "
            "`pip install --no-build-isolation -e .`, or set FASTINTERP_BACKEND=reference to go "
            f"without. The loader said: {error}"
        ) from error


@cache
def choice() -> str:
    """FASTINTERP_BACKEND: `auto` (default), `native` or `reference`. Read once."""
    value = require_one_of(
        "FASTINTERP_BACKEND",
        os.environ.get("FASTINTERP_BACKEND", "auto"),
        ("auto", "native", "reference"),
    )
    if value == "native" and extension() is None:
        raise InputError(
            "FASTINTERP_BACKEND=native, but the kernels were not built; "
            "build them with `pip install --no-build-isolation -e .`."
        )
    return value


def build_info() -> dict[str, Any]:
    """How the extension was built: at least `built` and `cuda` (bool), `cuda_archs` (list)."""
    module = extension()
    if module is None:
        return {"built": False, "cuda": False, "cuda_archs": []}
    return {"built": True, **module.build_info()}


def _find_native_device_types() -> frozenset[str]:
    if choice() == "reference" or extension() is None:
        return frozenset()
    return frozenset({"cpu", "cuda"} if build_info()["cuda"] else {"cpu"})


# A constant, not a cached call: torch.compile traces through `is_native`.
_NATIVE_DEVICE_TYPES = _find_native_device_types()
_NATIVE_DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})


def is_transformed() -> bool:
    """Whether torch.func (jvp, grad, vmap, ...) or forward-mode derivatives are at work.

    The kernels have no rules for these, and without a word give a tangent of zero; plain torch
    serves instead.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def is_native(tensor: torch.Tensor) -> bool:
    """Whether the compiled kernels serve tensors like this one."""
    if is_transformed():
        return False
    # Loops on a CPU call this often, and reading `device.type` takes longer.
    device_type = "cpu" if tensor.is_cpu or tensor.is_meta else tensor.device.type
    if device_type in _NATIVE_DEVICE_TYPES:
        return tensor.dtype in _NATIVE_DTYPES
    if not torch.compiler.is_compiling():
        _warn_of_reference(device_type)
    return False


@cache
def _warn_of_reference(device_type: str) -> None:
    if choice() != "reference":
        warnings.warn(
            f"fastinterp has no compiled kernels for device type {device_type!r}; plain torch "
            "serves, correct but slower. `fastinterp doctor` says how to build them.",
            RuntimeWarning,
            stacklevel=4,
        )


def backend(device: str | torch.device | None = None) -> str:
    """Which implementation serves ops on `device`: "cuda", "cpu" or "reference".

    Args:
        device: where the tensors are; by default a CUDA GPU if torch finds one, else the CPU.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device_type = torch.device(device).type
    return device_type if device_type in _NATIVE_DEVICE_TYPES else "reference"
