"""Whether the hardware supports bfloat16, and what runs where it does not."""

from __future__ import annotations

import platform
import warnings
from functools import cache

import torch

from ..attacks.outputs import Precision


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision asked for; float32, with one warning, for "bf16" where it would be emulated."""
    if precision == "bf16" and not has_bf16(device):
        _warn_float32(device.type)
        return "float32"
    return precision


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # Private functions of torch; if they are missing, the answer is no.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@cache
def _warn_float32(device_type: str) -> None:
    warnings.warn(
        f'precision="bf16" is not supported by this {device_type} device, which has no units for '
        "bfloat16; the inner loop runs in float32.",
        RuntimeWarning,
        stacklevel=4,
    )
