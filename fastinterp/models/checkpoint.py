"""Our own checkpoints: one safetensors file whose header says how to build the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import atomic_path
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
        info: anything JSON can hold that is worth keeping with it, read back by `info`. The keys
            config and fastinterp are taken.

    Raises:
        InputError: the suffix is not .safetensors, the model cannot be rebuilt from a config, or
            `info` does not fit into JSON.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"A checkpoint's name must end in .safetensors, got {path}.")
    header = _header(model, info or {})
    # clone: weights that share memory, or are laid out otherwise, are of no use in a file.
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
            "say how to build the network again; keep the weights of a wrapped network with "
            "torch.save(model.state_dict(), path) and wrap it anew."
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
        path: the file, whose suffix says which of the two it is; or the folder of a run that has
            come to its end.
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
    return model.to(device).eval()


def info(path: str | Path) -> dict[str, Any]:
    """The JSON in a checkpoint's header: config, fastinterp (the version that wrote it), and what
    was given to `save` as info beside them. {} for a `.pkl`, which has none.

    Raises:
        InputError: as `load`, of which this reads the header alone.
    """
    path = _file(path)
    return {} if _suffix(path) == ".pkl" else _read(path)[0]


def _file(path: str | Path) -> Path:
    """The path; of a folder the network in it, which trainers write there at the end of a run."""
    path = Path(path)
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


def _suffix(path: str | Path) -> str:
    """The suffix of a file that exists and that `load` may know."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path}; give the path of a .safetensors or .pkl file.")
    if path.suffix not in (".safetensors", ".pkl"):
        raise InputError(
            f"Cannot tell what {path} is: a network's file ends in .safetensors (a checkpoint) or "
            ".pkl (a network released with the paper)."
        )
    return path.suffix


def _load_own(path: str | Path) -> LayeredClassifier:
    header, state = _read(path, with_state=True)
    with torch.device("meta"):
        model = empty(header.get("config", {}))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{path} does not hold the parameters of the network that its header describes "
            f"({header['config']}); save it again."
        ) from error
    return model


def _read(path: str | Path, with_state: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header's JSON and, if wanted, the tensors of one of our checkpoints."""
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            # clone: what safetensors returns may be the file itself, mapped into memory.
            names = file.keys() if with_state else []
            state = {name: file.get_tensor(name).clone() for name in names}
        header = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"Cannot read {path}: not a safetensors file, or a damaged one ({error})."
        ) from error
    if isinstance(header, dict) and "config" not in header and "optimizer" in header:
        raise InputError(
            f"{path} is the state of a run, kept to go on with it; its network is "
            f"{Path(path).with_name('model.safetensors')}, once the run has come to its end."
        )
    if not isinstance(header, dict):
        raise InputError(
            f"{path} is a safetensors file, but not one that fastinterp wrote: its header does not "
            "say how to build the network; save networks with fastinterp.models.save."
        )
    return header, state
