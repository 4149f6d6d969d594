"""The check of a device."""

from __future__ import annotations

import torch

from . import processes
from .errors import InputError


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name, if tensors can be made on it.

    Raises:
        InputError: torch does not know the name, or this machine has no such device.
    """
    if str(device) == "cuda":
        processes.join()  # which gives each process its GPU
    try:
        found = torch.empty(0, device=device).device
        if found.type == "meta":
            raise RuntimeError("tensors of the device meta hold no numbers")
        return found
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"The device {str(device)!r} cannot be used here; use cpu, or run `fastinterp doctor` "
            "to see the GPUs that torch finds."
        ) from error
