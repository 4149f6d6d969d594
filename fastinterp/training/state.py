"""A run's state in one safetensors file: everything needed to continue it exactly."""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.files import atomic_path
from .folder import BEFORE, STATE
from .optimizer_state import flatten, load_optimizer

FORMAT = 2  # 1 has no checksum
_RECORD = {"step": int, "first_step": int, "images": int, "seconds": int | float}
_HEADER, _CHECKSUM = "fastinterp", "checksum"  # the entries of the file's header


class DamagedState(InputError):
    """A file that is not, or is no longer, what `save_state` wrote."""


@dataclass
class State:
    """What a file of `save_state` holds, read from `path`."""

    path: Path
    record: dict[str, Any]
    optimizer: dict[str, Any]
    tensors: dict[str, Tensor]


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    totals: Tensor,
    record: dict[str, Any],
    ema: nn.Module | None = None,
) -> None:
    """Write the network, the optimizer, torch's random state and `record` (JSON), atomically.

    The state that was in `path` is then in `BEFORE`, in the same folder.

    Args:
        totals: the running sums of the epoch, a tensor so that no bit is lost.
        ema: the moving average of the weights.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    optimizer_tensors, optimizer_json = flatten(optimizer.state_dict())
    tensors |= optimizer_tensors
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.state_dict().items()}
    tensors["totals"] = totals
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and totals.is_cuda:
        tensors["random/cuda"] = torch.cuda.get_rng_state(totals.device)
    # Clones, because the format refuses tied weights, which share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = encode(plain, {"format": FORMAT, "optimizer": optimizer_json, "record": record})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        if path.exists():
            with atomic_path(path.with_name(BEFORE)) as link:
                _link_or_copy(path, link)


def _link_or_copy(path: Path, link: Path) -> None:
    try:
        os.link(path, link)
    except OSError:  # a disk without links
        shutil.copyfile(path, link)


def encode(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """The content of a state's file, with a checksum over all of it."""
    text = json.dumps(metadata)
    return to_bytes(tensors, {_HEADER: text, _CHECKSUM: _checksum(text, tensors)})


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    digest = sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_newest(folder: Path) -> State | None:
    """The newest state of a folder, or the one before if that is damaged; None without any.

    Raises:
        InputError: all are damaged, or the newest is not the state of a fastinterp run.
    """
    path, before = folder / STATE, folder / BEFORE
    if not path.exists() and not before.exists():
        return None
    try:
        return read_state(path)
    except DamagedState as damage:
        if not before.exists():
            raise
        try:
            state = read_state(before)
        except DamagedState:
            raise InputError(
                f"{path} and {before.name} are both damaged; bring one back from a copy, or start "
                "the run again in another folder."
            ) from damage
    warnings.warn(
        f"{path} is damaged or missing; the run continues from step {state.record['step']}, the "
        "state before it.",
        stacklevel=2,
    )
    return state


def read_state(path: Path) -> State:
    """Read what `save_state` wrote.

    Raises:
        DamagedState: the file is damaged, or of something else.
        InputError: it is not a state that this version reads.
    """
    try:
        if path.exists():  # an error of the disk says nothing about the content
            path.open("rb").close()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; make it readable and resume again."
        ) from error
    try:
        # Opened once: a run may replace the file at any time.
        content = path.read_bytes()
        tensors = {name: value.clone() for name, value in from_bytes(content).items()}
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        metadata = json.loads(header[_HEADER])
        found, record, optimizer = (metadata[key] for key in ("format", "record", "optimizer"))
        whole = header.get(_CHECKSUM) == _checksum(header[_HEADER], tensors)
        if not whole and (found != 1 or header.keys() != {_HEADER}):
            raise ValueError("the checksum is another")
    except Exception as error:  # safetensors raises undocumented exceptions
        raise DamagedState(
            f"{path} is not the state of a fastinterp run, or is damaged; remove it or choose "
            "another folder."
        ) from error
    if found not in (1, FORMAT):
        raise InputError(
            f"{path} is a state of format {found!r}, and this version reads 1 and {FORMAT}; "
            "finish the run with the version that started it."
        )
    if not _is_record(record):
        raise InputError(
            f"{path} is not the state of a fastinterp run: its record of steps and epochs is not "
            "one; remove it or choose another folder."
        )
    return State(path, record, optimizer, tensors)


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        return False
    for name, kind in _RECORD.items():
        value = record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= value < math.inf:
            return False
    if not isinstance(record.get("first_epoch", 0), int):
        return False
    rows = record.get("history")
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(value is None or isinstance(value, int | float) for value in row.values())
        for row in rows
    )


def restore_state(
    state: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: nn.Module | None = None,
) -> Tensor:
    """Load a state into model, optimizer, average and torch's random state; return totals.

    Raises:
        InputError: it is not a state of this network and optimizer.
    """
    device = next(model.parameters()).device
    tensors = state.tensors
    try:
        totals, random = tensors["totals"], tensors["random/cpu"]
        if totals.shape != (3,) or not totals.is_floating_point():
            raise ValueError("totals are three sums")
        weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model/")}
        _require_alike(weights, model.state_dict())
        if ema is not None:
            averages = {k[4:]: v for k, v in tensors.items() if k.startswith("ema/")}
            _require_alike(averages, ema.state_dict())
            ema.load_state_dict(averages)
        load_optimizer(optimizer, state.optimizer, tensors)
        model.load_state_dict(weights)
        torch.set_rng_state(random)
        if "random/cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], device)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{state.path} is the state of another network or optimizer, or damaged; choose "
            "another folder, or build the same network and optimizer."
        ) from error
    return totals.to(device)


def _require_alike(old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    kinds = [{name: (v.shape, v.dtype) for name, v in each.items()} for each in (old, new)]
    if kinds[0] != kinds[1]:
        raise ValueError("names, shapes or dtypes differ")
