"""A run's state in one safetensors file: everything needed to continue it exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.files import atomic_path

FORMAT = 1
RECORD = {"step": int, "first_step": int, "images": int, "history": list, "settings": dict}
_FOREIGN = "{path} is not the state of a fastinterp run; remove it or choose another folder."


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    totals: Tensor,
    record: dict[str, Any],
) -> None:
    """Write the network, the optimizer, torch's random state and `record` (JSON), atomically.

    Args:
        totals: the running sums of the epoch, a tensor so that no bit is lost.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    optimizer_tensors, optimizer_json = _flatten(optimizer.state_dict())
    tensors |= optimizer_tensors
    tensors["totals"] = totals
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and totals.is_cuda:
        tensors["random/cuda"] = torch.cuda.get_rng_state(totals.device)
    # Clones, because the format refuses tied weights, which share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {"format": FORMAT, "optimizer": optimizer_json, "record": record}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, {"fastinterp": json.dumps(metadata)})


def read_record(path: Path) -> dict[str, Any]:
    """The `record` that `save_state` was given.

    Raises:
        InputError: the file is not a state of a fastinterp run.
    """
    record = _metadata(path)["record"]
    if not isinstance(record, dict) or any(
        not isinstance(record.get(name), kind) for name, kind in RECORD.items()
    ):
        raise InputError(_FOREIGN.format(path=path))
    return record


def restore_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Load what `save_state` wrote into model, optimizer and torch's random state; return totals.

    Raises:
        InputError: the file is not a state of this network and optimizer.
    """
    device = next(model.parameters()).device
    try:
        with safe_open(path, "pt") as file:
            # clone, because safetensors may return the file itself, mapped into memory
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        of_optimizer = _unflatten(_metadata(path)["optimizer"], tensors)
        totals: Tensor = tensors["totals"]
        random = tensors["random/cpu"]
        if totals.shape != (3,):
            raise ValueError("totals are three sums")
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model/")})
        optimizer.load_state_dict(of_optimizer)
        _lay_out_as_parameters(optimizer)
        torch.set_rng_state(random)
        if "random/cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], device)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is the state of another network or optimizer, or damaged; choose another "
            "folder, or build the same network and optimizer."
        ) from error
    return totals.to(device)


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer's moments their parameters' strides, as they had before they were saved.

    If they differ, torch updates parameters one by one instead of all at once.
    """
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                like = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
                entries[key] = like.copy_(value)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {})["fastinterp"]
        metadata: dict[str, Any] = json.loads(text)
    except Exception as error:  # safetensors raises undocumented exceptions
        raise InputError(_FOREIGN.format(path=path)) from error
    if not isinstance(metadata, dict) or not {"record", "optimizer"} <= metadata.keys():
        raise InputError(_FOREIGN.format(path=path))
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} is a state of format {metadata.get('format')}, and this version reads "
            f"{FORMAT}; finish the run with the version that started it."
        )
    return metadata


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
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


def _unflatten(rest: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in rest["state"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state[int(index)][key] = value
    return {"state": state, "param_groups": rest["param_groups"]}
