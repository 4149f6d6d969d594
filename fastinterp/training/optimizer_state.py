"""An optimizer's state as named tensors and JSON, and back, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state -> its tensors by name, and the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        rest[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                rest[str(index)][key] = value
    # A learning rate that a CUDA graph reads is a tensor.
    groups = [
        {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"state": rest, "param_groups": groups}


def load_optimizer(optimizer: Optimizer, rest: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Load what `flatten` returned into an optimizer.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not of such an optimizer.
    """
    now = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(_unflatten(rest, tensors))
    for before, group in zip(now, optimizer.param_groups, strict=True):
        for key, value in before.items():
            if key != "params" and not _is_alike(group[key], value):
                raise ValueError(f"{key} is of another kind")
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW | torch.optim.SGD):
        _require_moments(optimizer)
    _lay_out_as_parameters(optimizer)


def _require_moments(optimizer: Optimizer) -> None:
    """Raise unless the moments have their parameters' shapes, and Adam has all of them."""
    adam = not isinstance(optimizer, torch.optim.SGD)
    for parameter, entries in optimizer.state.items():
        if adam and entries and not {"step", "exp_avg", "exp_avg_sq"} <= entries.keys():
            raise ValueError("a moment is missing")
        for key, value in entries.items():
            shape = torch.Size() if key == "step" else parameter.shape
            if value is not None and value.shape != shape:
                raise ValueError(f"{key} has another shape")


def _is_alike(old: object, new: object) -> bool:
    """Whether a saved setting of an optimizer can take the place of its present one."""
    if isinstance(new, list | tuple):
        if not isinstance(old, list | tuple) or len(old) != len(new):
            return False
        return all(_is_alike(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(new, bool) or new is None:
        return new is None or old is None or isinstance(old, bool)
    if isinstance(new, int | float | Tensor):
        return isinstance(old, int | float)
    return type(old) is type(new)


def _unflatten(rest: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in rest["state"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state[int(index)][key] = value
    return {"state": state, "param_groups": rest["param_groups"]}


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give an optimizer's moments their parameters' strides, as they had before they were saved.

    If they differ, torch updates parameters one by one instead of all at once.
    """
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                like = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
                entries[key] = like.copy_(value)
