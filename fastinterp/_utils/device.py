"""Where tensors live, checked before anything is put there."""

from __future__ import annotations

import torch

from .errors import InputError


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name, if tensors can be made on it.

    Raises:
        InputError: torch does not know the name, or there is no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"The device {str(device)!r} cannot be used here; take cpu, or see in "
            "`fastinterp doctor` which GPUs torch finds."
        ) from error
