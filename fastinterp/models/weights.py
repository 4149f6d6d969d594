"""Weights in safetensors files: which file, what its header says, and filling a network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.files import usable_file

HEADER = "fastinterp"  # the header entry that holds our JSON
_PREFIX = "module."  # of the weights of a network inside a classifier of ours


def network_file(path: str | Path) -> Path:
    """The path; of a folder the network in it, which trainers write there at the end of a run.

    Raises:
        InputError: there is no such file, or no network in the folder.
    """
    path = Path(path)
    if not os.path.exists(path):  # noqa: PTH110, Path.exists raises for a name that is too long
        raise InputError(f"There is no file {path}; give the path of a .safetensors or .pkl file.")
    network = path / "model.safetensors"
    if not path.is_dir() or network.is_file():
        return network if path.is_dir() else path
    if (path / "state.safetensors").is_file():
        raise InputError(
            f"{path} holds a run's state but no model.safetensors: resume a run that was stopped "
            "(`fastinterp train --resume`); of a wrapped network that an earlier version trained, "
            "the weights are the entries model/NAME of its state.safetensors."
        )
    raise InputError(f"There is no network in the folder {path}: it holds no model.safetensors.")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open."""
    usable_file(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"Cannot read {path}: not a safetensors file, or a damaged one ({error})."
        ) from error


def header_of(path: Path) -> Any:
    """The JSON in the header of a file that fastinterp wrote; None for a file of others."""
    with opened(path) as file:
        text = (file.metadata() or {}).get(HEADER)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"Cannot read {path}: not a safetensors file, or a damaged one ({error})."
        ) from error


def fill(network: nn.Module, path: Path, new_classifier: bool = False) -> list[str]:
    """Copy all weights of a file into a network, which keeps its dtype and device.

    The names may be those of the network, or of the module inside it.

    Args:
        new_classifier: leave a tensor out whose shape differs in the number of classes alone.

    Returns:
        The names that were left out.

    Raises:
        InputError: the file does not hold exactly the network's weights.
    """
    own = network.state_dict()
    with opened(path) as file:
        theirs, left_out = match(own, file, path, type(network).__name__, new_classifier)
        # clone: what safetensors returns may be the file itself, mapped into memory.
        state = {name: file.get_tensor(held).clone() for name, held in theirs.items()}
    for name, value in state.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise InputError(f"{path} holds {name!r} as {value.dtype}, not {own[name].dtype}.")
    network.load_state_dict(own | state)
    return left_out


def match(
    own: Mapping[str, Tensor], file: Any, path: Path, who: str, new_classifier: bool = False
) -> tuple[dict[str, str], list[str]]:
    """The network's names -> the open file's names, and the names left out. No tensor is read."""
    held, wanted = _bare(list(file.keys())), _bare(list(own))
    does_not = f"{path} does not hold the weights of this network ({who}): "
    for name in wanted.keys() - held.keys():
        raise InputError(f"{does_not}it lacks {name!r}; build the network that it was saved of.")
    for name in held.keys() - wanted.keys():
        raise InputError(
            f"{does_not}it also holds {name!r}; build the network that it was saved of."
        )
    names, left_out = {}, []
    for bare, name in wanted.items():
        shape, expected = file.get_slice(held[bare]).get_shape(), list(own[name].shape)
        if shape == expected:
            names[name] = held[bare]
        elif new_classifier and shape and expected and shape[1:] == expected[1:]:
            left_out.append(bare)
        else:
            raise InputError(
                f"{does_not}{bare!r} has shape {shape} there and {expected} here; give the number "
                "of classes and the arguments that it was saved with."
            )
    if len(left_out) > 2:
        raise InputError(f"{does_not}{', '.join(map(repr, left_out[:3]))}, ... differ in shape.")
    return names, left_out


def _bare(names: list[str]) -> dict[str, str]:
    """The weights' names in the module inside, if all are those of one with a module inside."""
    inside = all(name.startswith(_PREFIX) for name in names)
    return {name.removeprefix(_PREFIX) if inside else name: name for name in names}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in state.items()}


def float_type(path: Path) -> torch.dtype:
    """The one floating-point type of a file's weights.

    Raises:
        InputError: there are several, or none.
    """
    with opened(path) as file:
        kinds = {str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    found = [_TYPES[kind] for kind in kinds if kind in _TYPES]
    if len(found) != 1 or not kinds <= _TYPES.keys() | {"I64", "I32", "U8", "BOOL"}:
        raise InputError(
            f"{path} holds parameters of several types, or of one that is not floating-point; save "
            "the network again, in one type."
        )
    return found[0]


_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
