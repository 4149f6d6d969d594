"""Checkpoints: one safetensors file whose header says how to build the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .._utils.device import usable_device
from .._utils.errors import InputError
from .._utils.files import atomic_path
from .._version import __version__
from .gap import GapClassifier
from .names import is_function
from .networks import LayeredClassifier, empty
from .released import load_released
from .sources import Network, PlainClassifier, restore
from .weights import HEADER, fill, float_type, header_of, network_file, opened, shapes_of
from .wrap import WrappedClassifier

Module = TypeVar("Module", bound=nn.Module)
_RESERVED = ("config", "fastinterp", "network")


def save(model: nn.Module, path: str | Path, info: dict[str, Any] | None = None) -> None:
    """Write a network to one `.safetensors` file, atomically.

    Args:
        model: a network made by `small`, `pool`, `wresnet`, `build`, `from_source` or `load`, which
            `load` builds again; or any other, such as a wrapped one, whose weights alone are kept:
            `load(path, into=network)` reads them.
        path: the file; missing folders are made.
        info: anything that JSON can hold, stored with it and read back by `info`. The keys config,
            fastinterp and network are taken.

    Raises:
        InputError: the suffix is not .safetensors, the parameters are not those that the model's
            config describes, or `info` does not fit into JSON.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"A checkpoint's name must end in .safetensors, got {path}.")
    around = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if not isinstance(model, nn.Module) or hasattr(model, "_orig_mod") or isinstance(model, around):
        raise InputError(
            f"Cannot save a {type(model).__name__}: pass the bare network, without torch.compile "
            "or DistributedDataParallel around it."
        )
    config = model.config if isinstance(model, (GapClassifier, PlainClassifier)) else None
    header = _header(model, config, info or {})
    # clone: safetensors writes only tensors that are contiguous and share no memory.
    state = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    if config is not None:
        _require_rebuildable(model, config, state)
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_bytes(state, metadata={HEADER: header}))


def _header(model: nn.Module, config: dict[str, Any] | None, info: dict[str, Any]) -> str:
    """The JSON of a checkpoint's header."""
    taken = [key for key in _RESERVED if key in info]
    if taken:
        raise InputError(f"info must not use the key {taken[0]!r}: the checkpoint itself sets it.")
    about: dict[str, Any] = {"config": config, HEADER: __version__}
    if config is None:
        about["network"] = _description(model)
    try:
        return json.dumps({**about, **info})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"info must hold only what JSON can (text, numbers, lists, dicts): {error}."
        ) from error


def _description(model: nn.Module) -> dict[str, Any]:
    """What is known of a network without a source: its class, and what `wrap` normalises by."""
    about: dict[str, Any] = {"class": type(getattr(model, "module", model)).__name__}
    if isinstance(model, (WrappedClassifier, PlainClassifier)):
        for key in ("mean", "std"):
            about[key] = getattr(model, key).flatten().tolist()
    return about


def _require_rebuildable(
    model: nn.Module, config: dict[str, Any], state: dict[str, Tensor]
) -> None:
    """Raise unless the model's config describes a network with exactly these parameters."""
    if "source" in config:
        expected = getattr(model, "built", None)
    else:
        with torch.device("meta"):
            expected = shapes_of(empty(config).state_dict())
    if expected != shapes_of(state):
        raise InputError(
            f"Cannot save this model: its parameters are not those of the network that its config "
            f"{config} describes; set model.config = None to save the weights alone."
        )


@overload
def load(
    path: str | Path, map_location: str | torch.device = ..., *, trust: str | None = ...
) -> Network: ...


@overload
def load(
    path: str | Path,
    map_location: str | torch.device = ...,
    *,
    into: Module,
    trust: str | None = ...,
) -> Module: ...


def load(
    path: str | Path,
    map_location: str | torch.device = "cpu",
    *,
    into: nn.Module | None = None,
    trust: str | None = None,
) -> nn.Module:
    """Read a network: our own checkpoint (`.safetensors`) or one of the authors' (`.pkl`).

    Args:
        path: the file, whose suffix says which of the two it is; or the folder of a finished run.
        map_location: the device for the network.
        into: a network of your own, into which the weights are copied; it keeps its dtype and its
            device, and is returned. Any .safetensors file that has exactly its weights will do.
        trust: the `package.module:function` that may be imported and run to build the network, if
            the file names it. Other functions never run.

    Returns:
        The network, in eval mode, in the dtype it was saved in. One of timm or torchvision is built
        without weights, then gets those of the file.

    Raises:
        InputError: no such file, another suffix, a damaged file, one that holds another kind of
            content (such as a run's state, or weights without a source), a folder without a
            network, a pickle that names anything but NumPy arrays (it is refused before anything in
            it runs), a library that is not installed, or no such device.
    """
    path = network_file(path)
    suffix = _suffix(path)
    if into is not None:
        if suffix == ".pkl":
            raise InputError(f"into= is for .safetensors files, and {path} is a pickle; leave it.")
        _require_same_normalisation(into, path)
        fill(into, path)
        return into.eval()
    device = usable_device(map_location)
    model: Network = load_released(path) if suffix == ".pkl" else _load_own(path, trust)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"{path} holds weights that are not finite; get the file again, or train the network "
            "with a smaller learning rate."
        )
    return model.to(device).eval()


def _require_same_normalisation(into: nn.Module, path: Path) -> None:
    """Raise if the file's network normalised its images otherwise than `into` does."""
    header = header_of(path)
    header = header if isinstance(header, dict) else {}
    was, now = header.get("config") or header.get("network"), _description(into)
    for key in ("mean", "std"):
        if isinstance(was, dict) and key in was and key in now:
            given = torch.as_tensor(now[key])
            if was[key] != now[key] and not torch.equal(torch.tensor(was[key]).to(given), given):
                raise InputError(
                    f"{path} holds a network with {key} = {was[key]}, not {now[key]}; wrap the "
                    "network with the same mean and std."
                )


def info(path: str | Path) -> dict[str, Any]:
    """The JSON in a checkpoint's header: config, fastinterp (the version that wrote it), and the
    info that was given to `save`. {} for a `.pkl`, which has none.

    Raises:
        InputError: as for `load`.
    """
    path = network_file(path)
    return {} if _suffix(path) == ".pkl" else _read(path)


def _suffix(path: Path) -> str:
    """The suffix of a file, if `load` may know it."""
    if path.suffix not in (".safetensors", ".pkl"):
        raise InputError(
            f"Cannot tell what {path} is: a network's file ends in .safetensors (a checkpoint) or "
            ".pkl (a network released with the paper)."
        )
    return path.suffix


def _load_own(path: Path, trust: str | None) -> Network:
    header = _read(path)
    config = header.get("config", {})
    if config is None:
        raise InputError(
            f"{path} holds only the weights of a network ({_class_of(header)}) that no file "
            "can build again: build it and call fastinterp.models.load(path, into=network), or "
            "name the function that builds it, as package.module:function with --weights PATH."
        )
    if isinstance(config, dict) and "source" in config:
        if is_function(config["source"]) and config["source"] != trust:
            raise InputError(
                f"{path} names the function {config['source']}, which a file may not run: if you "
                f"trust it, name it yourself, as {config['source']} --weights {path}, or with "
                f"fastinterp.models.load(path, trust={config['source']!r})."
            )
        return restore(config, path, trust=trust)
    return _load_layered(path, config)


def _class_of(header: dict[str, Any]) -> str:
    about = header.get("network")
    return str(about.get("class")) if isinstance(about, dict) else "of an unknown class"


def _load_layered(path: Path, config: dict[str, Any]) -> LayeredClassifier:
    with torch.device("meta"):
        model = empty(config)
    shapes = shapes_of(model.state_dict())
    with opened(path) as file:
        held = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
        # Before a tensor is read: a file may hold many that do not belong there.
        if held != shapes:
            raise InputError(
                f"{path} does not hold the parameters of the network that its header describes "
                f"({config}); save it again."
            )
        # clone: what safetensors returns may be the file itself, mapped into memory.
        state = {name: file.get_tensor(name).clone() for name in shapes}
    float_type(path)
    model.load_state_dict(state, assign=True)
    return model


def _read(path: Path) -> dict[str, Any]:
    """The header's JSON of one of our checkpoints."""
    header = header_of(path)
    if isinstance(header, dict) and "config" not in header and "optimizer" in header:
        raise InputError(
            f"{path} is the state of a run, for resuming it; its network is "
            f"{path.with_name('model.safetensors')}, once the run has finished."
        )
    if not isinstance(header, dict):
        raise InputError(
            f"{path} is a safetensors file, but not one that fastinterp wrote: its header does not "
            "say how to build the network; save networks with fastinterp.models.save, or read its "
            "weights with fastinterp.models.load(path, into=network)."
        )
    return header
