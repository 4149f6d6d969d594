"""Checkpoints: one safetensors file whose header says how to build the network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import atomic_path, usable_file
from .._version import __version__
from .gap import GapClassifier
from .networks import LayeredClassifier, empty
from .released import load_released

_HEADER = "fastinterp"  # the header entry that holds our JSON
_RESERVED = ("config", "fastinterp")


def save(model: GapClassifier, path: str | Path, info: dict[str, Any] | None = None) -> None:
    """Write a network to one `.safetensors` file, atomically.

    Args:
        model: a network made by `small`, `pool`, `wresnet`, `build` or `load`.
        path: the file; missing folders are made.
        info: anything that JSON can hold, stored with it and read back by `info`. The keys config
            and fastinterp are taken.

    Raises:
        InputError: the suffix is not .safetensors, the model cannot be rebuilt from a config, or
            `info` does not fit into JSON.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"A checkpoint's name must end in .safetensors, got {path}.")
    header = _header(model, info or {})
    # clone: safetensors writes only tensors that are contiguous and share no memory.
    state = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    _require_rebuildable(model, state)
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_bytes(state, metadata={_HEADER: header}))


def _header(model: GapClassifier, info: dict[str, Any]) -> str:
    """The JSON of a checkpoint's header."""
    taken = [key for key in _RESERVED if key in info]
    if taken:
        raise InputError(f"info must not use the key {taken[0]!r}: the checkpoint itself sets it.")
    try:
        return json.dumps({"config": model.config, _HEADER: __version__, **info})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"info must hold only what JSON can (text, numbers, lists, dicts): {error}."
        ) from error


def _require_rebuildable(model: GapClassifier, state: dict[str, Tensor]) -> None:
    """Raise unless the model's config describes a network with exactly these parameters."""
    if model.config is None:
        raise InputError(
            f"Cannot save a {type(model).__name__} whose config is None, because a checkpoint must "
            "say how to build the network again; save the weights of a wrapped network with "
            "torch.save(model.state_dict(), path), and load them into the network wrapped anew."
        )
    with torch.device("meta"):
        expected = empty(model.config).state_dict()
    if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in state.items()}:
        raise InputError(
            "Cannot save this model: its parameters are not those of the network that its config "
            f"{model.config} describes; pass the bare network, without torch.compile or "
            "DistributedDataParallel around it."
        )


def load(path: str | Path, map_location: str | torch.device = "cpu") -> GapClassifier:
    """Read a network: our own checkpoint (`.safetensors`) or one of the authors' (`.pkl`).

    Args:
        path: the file, whose suffix says which of the two it is; or the folder of a finished run.
        map_location: the device for the network.

    Returns:
        The network, in eval mode, in the dtype it was saved in.

    Raises:
        InputError: no such file, another suffix, a damaged file, one that holds another kind of
            content (such as a run's state), a folder without a network, a pickle that names
            anything but NumPy arrays (it is refused before anything in it runs), or no such device.
    """
    device = usable_device(map_location)
    path = _file(path)
    model = load_released(path) if _suffix(path) == ".pkl" else _load_own(path)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"{path} holds weights that are not finite; get the file again, or train the network "
            "with a smaller learning rate."
        )
    return model.to(device).eval()


def info(path: str | Path) -> dict[str, Any]:
    """The JSON in a checkpoint's header: config, fastinterp (the version that wrote it), and the
    info that was given to `save`. {} for a `.pkl`, which has none.

    Raises:
        InputError: as for `load`.
    """
    path = _file(path)
    return {} if _suffix(path) == ".pkl" else _read(path)


def _file(path: str | Path) -> Path:
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
            "(`fastinterp train --resume`); a wrapped network's weights are the entries "
            "model/NAME of its state.safetensors."
        )
    raise InputError(f"There is no network in the folder {path}: it holds no model.safetensors.")


def _suffix(path: Path) -> str:
    """The suffix of a file, if `load` may know it."""
    if path.suffix not in (".safetensors", ".pkl"):
        raise InputError(
            f"Cannot tell what {path} is: a network's file ends in .safetensors (a checkpoint) or "
            ".pkl (a network released with the paper)."
        )
    return path.suffix


def _load_own(path: Path) -> LayeredClassifier:
    header = _read(path)
    with torch.device("meta"):
        model = empty(header.get("config", {}))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    with safe_open(str(path), framework="pt") as file:
        held = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
        # Before a tensor is read: a file may hold many that do not belong there.
        if held != shapes:
            raise InputError(
                f"{path} does not hold the parameters of the network that its header describes "
                f"({header['config']}); save it again."
            )
        # clone: what safetensors returns may be the file itself, mapped into memory.
        state = {name: file.get_tensor(name).clone() for name in shapes}
    types = {value.dtype for value in state.values()}
    if len(types) > 1 or not types.pop().is_floating_point:
        raise InputError(
            f"{path} holds parameters of several types, or of one that is not floating-point; save "
            "the network again, in one type."
        )
    model.load_state_dict(state, assign=True)
    return model


def _read(path: Path) -> dict[str, Any]:
    """The header's JSON of one of our checkpoints."""
    usable_file(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
        header = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"Cannot read {path}: not a safetensors file, or a damaged one ({error})."
        ) from error
    if isinstance(header, dict) and "config" not in header and "optimizer" in header:
        raise InputError(
            f"{path} is the state of a run, for resuming it; its network is "
            f"{path.with_name('model.safetensors')}, once the run has finished."
        )
    if not isinstance(header, dict):
        raise InputError(
            f"{path} is a safetensors file, but not one that fastinterp wrote: its header does not "
            "say how to build the network; save networks with fastinterp.models.save."
        )
    return header
