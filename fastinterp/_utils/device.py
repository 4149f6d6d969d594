"""The check of a device."""

from __future__ import annotations

import torch

from .errors import InputError


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name, if tensors can be made on it.

    Raises:
        InputError: torch does not know the name, or this machine has no such device.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"The device {str(device)!r} cannot be used here; use cpu, or run `fastinterp doctor` "
            "to see the GPUs that torch finds."
        ) from error
