"""Which implementation serves an op: the compiled kernels or plain torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from functools import cache
from typing import Any

import torch

from .._utils.errors import InputError

CHOICES = ("auto", "native", "reference")


@cache
def extension() -> Any | None:
    """The compiled module `fastinterp._C`, or None where nothing was built.

    A module that was built but does not load is an error, not a reason to go slowly.
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
    value = os.environ.get("FASTINTERP_BACKEND", "auto")
    if value not in CHOICES:
        raise InputError(f"FASTINTERP_BACKEND must be one of {', '.join(CHOICES)}, got {value!r}.")
    if value == "native" and extension() is None:
        raise InputError(
            "FASTINTERP_BACKEND=native, but the kernels were not built; "
            "build them with `pip install --no-build-isolation -e .`."
        )
    return value


def build_info() -> dict[str, Any]:
    """How the extension was built: at least `cuda` (bool) and `cuda_archs` (list of str).

    Where nothing was built, `built` is False and the rest says so.
    """
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


@cache
def _say_reference_serves(device_type: str) -> None:
    if choice() != "reference":
        warnings.warn(
            f"fastinterp has no compiled kernels for device type {device_type!r}; plain torch "
            "serves, correct but slower. `fastinterp doctor` says how to build them.",
            RuntimeWarning,
            stacklevel=4,
        )


_NATIVE_DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})


def is_native(tensor: torch.Tensor) -> bool:
    """Whether the compiled kernels serve tensors like this one."""
    # Loops on a CPU ask often, and a torch.device takes a while to make.
    device_type = "cpu" if tensor.is_cpu or tensor.is_meta else tensor.device.type
    if device_type in _NATIVE_DEVICE_TYPES:
        return tensor.dtype in _NATIVE_DTYPES
    if not torch.compiler.is_compiling():
        _say_reference_serves(device_type)
    return False


def callable_ops(tensor: torch.Tensor) -> Any:
    """Where to call the ops that loops call at every step: as plain functions, or, for compilers
    and subclasses of Tensor that want to know, as what torch.ops makes of them, which takes twice
    as long to arrive."""
    if type(tensor) is torch.Tensor and not torch.compiler.is_compiling():
        return extension()
    return torch.ops.fastinterp


def backend(device: str | torch.device | None = None) -> str:
    """Which implementation serves ops on `device`: "cuda", "cpu" or "reference".

    Args:
        device: where the tensors live; by default a CUDA GPU if torch sees one, else the CPU.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device_type = torch.device(device).type
    return device_type if device_type in _NATIVE_DEVICE_TYPES else "reference"
