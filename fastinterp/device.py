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
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"Cannot use the device {str(device)!r} ({reason}); "
            'take "cpu", or "cuda" where torch sees a GPU.'
        ) from error
