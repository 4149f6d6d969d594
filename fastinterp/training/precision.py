"""In which precision networks run, and whether the hardware has units for bfloat16."""

from __future__ import annotations

import platform
import warnings
from functools import cache
from typing import get_args

import torch

from .._utils.errors import InputError
from ..attacks.outputs import Precision


def require_precision(precision: Precision) -> Precision:
    """Raise unless it is one of the three."""
    if precision not in get_args(Precision):
        raise InputError(f'precision must be "float32", "tf32" or "bf16", got {precision!r}.')
    return precision


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision asked for; float32, with one warning, for "bf16" on hardware without units.

    Raises:
        InputError: there is no such precision.
    """
    if require_precision(precision) == "bf16" and not has_bf16(device):
        _say_float32_serves(device.type)
        return "float32"
    return precision


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware; emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _cpu_has_bf16()
    return False


def _cpu_has_bf16() -> bool:
    """torch tells of x86 in functions without a promise, so that their absence means no."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@cache
def _say_float32_serves(device_type: str) -> None:
    warnings.warn(
        f'precision="bf16" was asked for, and this {device_type} device has no units for bfloat16; '
        "the inner loop runs in float32.",
        RuntimeWarning,
        stacklevel=4,
    )
