"""Networks by name: `timm:NAME`, `torchvision:NAME`, or `package.module:function` of your own.

A checkpoint may name the first two, with a few plain arguments: it can only choose from the models
that the library lists, which are then built without weights. A function runs only where the caller
names it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .._utils.errors import InputError
from .._utils.require import require_count, require_seed
from .gap import GapClassifier
from .names import ARGUMENTS, KEYS, check_config, check_source, is_function, timm_library
from .networks import MOST, layered
from .weights import fill, float_type, header_of, match, network_file, opened, shapes_of
from .wrap import wrap

Numbers: TypeAlias = "Sequence[float] | None"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PlainClassifier(nn.Module):
    """A network that takes images in [0, 1], which has no class activation maps that are exact.

    Attributes:
        module: the network; it gets (x - mean) / std.
        config: how to build it again, as in a GapClassifier.
        in_channels, num_classes: of its images, and of its logits.
    """

    def __init__(self, module: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.config = module, config
        self.in_channels: int = config["in_channels"]
        self.num_classes: int = config["num_classes"]
        for name in ("mean", "std"):
            values = torch.tensor(config[name], dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images x [N, C_in, H, W] in [0, 1] -> logits [N, C]."""
        logits: Tensor = self.module((x - self.mean) / self.std)  # type: ignore[operator]
        return logits

    @property
    def device(self) -> torch.device:
        return self.mean.device  # type: ignore[return-value]


Network: TypeAlias = "GapClassifier | PlainClassifier"


def build(config: dict[str, Any], *, seed: int | None = None, trust: str | None = None) -> Network:
    """The network of a `config` such as {"name": "small", "in_channels": 1, "num_classes": 10}, or
    {"source": "timm:resnet18", "in_channels", "num_classes", "mean", "std", "arguments"}.

    Args:
        config: what `model.config` holds.
        seed: draws the initial weights reproducibly; None takes torch's global generator.
        trust: the `package.module:function` that may be imported and run, if the config names it.

    Raises:
        InputError: unknown name, missing or surplus keys, counts below 1, no whole seed, a library
            that is not installed, or a function that `trust` does not name.
    """
    seed = None if seed is None else require_seed("seed", seed)
    if not isinstance(config, dict) or "source" not in config:
        return layered(config, seed)
    check_config(config, trust)
    with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        module = _module(config)
    return _classifier(module, config)


def from_source(
    source: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    seed: int | None = None,
    new_classifier: bool = False,
) -> Network:
    """A network of timm, of torchvision or of your own, which `save` can write and `load` build.

    Args:
        source: `timm:NAME`, `torchvision:NAME` (without weights, nothing is downloaded), or
            `package.module:function`, which is imported and called with num_classes, in_channels
            and `arguments`, as far as it takes these.
        num_classes, in_channels: default: those of the weights' file if fastinterp wrote it, else
            10 and 3.
        mean, std: per-channel normalisation, which becomes part of the network: images stay in
            [0, 1]. Default: those of the weights' file if fastinterp wrote it; else for three
            channels timm's own for the name, ImageNet's for torchvision; else none.
        weights: a .safetensors file, of the network inside or of fastinterp, or a run's folder.
        arguments: further keyword arguments, such as {"global_pool": "avg"} for timm.
        seed: as in `build`.
        new_classifier: keep the last layer's initial weights where those of the file are for
            another number of classes.

    Returns:
        A GapClassifier if `wrap` can make one, else a PlainClassifier, which everything takes that
        reads logits alone. inception_v3 and googlenet are built without auxiliary classifiers.

    Raises:
        InputError: as for `build`; or the weights are not those of this network.
    """
    config: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "arguments": {}}
    path = None
    if weights is not None:
        path = network_file(weights)
        config |= recorded(path, source)
    given: dict[str, Any] = {"source": source, "mean": _listed(mean), "std": _listed(std)}
    given |= {"num_classes": num_classes, "in_channels": in_channels}
    given |= {"arguments": None if arguments is None else dict(arguments)}
    config |= {key: value for key, value in given.items() if value is not None}
    check_source(source)
    config = _usual_normalisation(config) | config
    if path is None:
        return build(config, seed=seed, trust=source)
    return restore(config, path, trust=source, seed=seed, new_classifier=new_classifier)


@torch.no_grad()
def require_logits(model: Network, x: Tensor) -> None:
    """Raise unless the network, made by name, gives logits [N, C] for images x."""
    source, modes = (model.config or {}).get("source"), [m.training for m in model.modules()]
    if source is None:
        return
    try:
        logits = model.eval()(x.to(model.device))
        found = list(logits.shape)
    except InputError:
        raise
    except Exception as error:  # another library's code may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{source} does not run on images of shape {list(x.shape[1:])} ({reason}); give the "
            "arguments that fit it to these images, or another network."
        ) from error
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    if found != [len(x), model.num_classes]:
        raise InputError(
            f"{source} gives outputs of shape {found} for one image, not logits "
            f"{[len(x), model.num_classes]}; give its own number of classes."
        )


def recorded(weights: str | Path, source: str) -> dict[str, Any]:
    """What a file of weights says of a network by that name: the keys of a config, or some."""
    header = header_of(network_file(weights))
    config = header.get("config", {}) if isinstance(header, dict) else {}
    if config is None:  # of a network without a source
        own = header.get("network")
        return {key: own[key] for key in ("mean", "std") if isinstance(own, dict) and key in own}
    return dict(config) if isinstance(config, dict) and config.get("source") == source else {}


def restore(
    config: dict[str, Any],
    path: Path,
    *,
    trust: str | None = None,
    seed: int | None = None,
    new_classifier: bool = False,
) -> Network:
    """The network of a config, with the weights of a file and in their dtype."""
    check_config(config, trust)
    dtype = float_type(path)
    if not is_function(config["source"]):
        _require_match(config, path, new_classifier)
    with torch.random.fork_rng(devices=[]):  # what is drawn is thrown away
        if seed is not None:
            torch.manual_seed(seed)
        module = _module(config).to(dtype)
    left_out = fill(module, path, new_classifier)
    if left_out:
        warnings.warn(
            f"{path} is for another number of classes: {', '.join(left_out)} keep their initial "
            "values and must be trained.",
            stacklevel=3,
        )
    return _classifier(module, config)


def _require_match(config: dict[str, Any], path: Path, new_classifier: bool) -> None:
    """Raise before memory is taken for a network whose weights are not in the file."""
    try:
        with torch.device("meta"):
            blank = _call(config)
    except InputError:
        raise
    except Exception:  # some networks cannot be built without memory
        return
    with opened(path) as file:
        match(blank.state_dict(), file, path, config["source"], new_classifier)


def _classifier(module: nn.Module, config: dict[str, Any]) -> Network:
    config = {key: config[key] for key in sorted(KEYS)}
    network: Network
    try:
        network = wrap(module, config["mean"], config["std"])
    except InputError:
        network = PlainClassifier(module, config)
    for key in ("in_channels", "num_classes"):
        if getattr(network, key) != config[key]:
            raise InputError(
                f"{config['source']} has {getattr(network, key)} {key}, not {config[key]}; give "
                f"its own number as {key}."
            )
    network.config = config
    network.built = shapes_of(network.state_dict())  # type: ignore[assignment]  # for `save`
    kind = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return network.to(kind)


def _module(config: dict[str, Any]) -> nn.Module:
    try:
        return _call(config)
    except InputError:
        raise
    except Exception as error:  # another library's code may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{config['source']} cannot be built with {config['in_channels']} channels, "
            f"{config['num_classes']} classes and arguments {config['arguments']} ({reason}); "
            "change these."
        ) from error


def _call(config: dict[str, Any]) -> nn.Module:
    """The bare network of a checked config, with initial weights."""
    where, _, name = config["source"].partition(":")
    channels, classes, arguments = (config[k] for k in ("in_channels", "num_classes", "arguments"))
    made: object
    if where == "timm":
        settings = {"num_classes": classes, "in_chans": channels, **arguments}
        made = timm_library().create_model(name, pretrained=False, **settings)
    elif where == "torchvision":
        if channels != 3:
            raise InputError(
                f"torchvision's networks take images of 3 channels, not {channels}; use timm's, "
                "which take any number, or a function of your own."
            )
        from torchvision.models import get_model

        if name in ("inception_v3", "googlenet"):
            arguments = {"aux_logits": False, "init_weights": True, **arguments}
        made = get_model(name, weights=None, num_classes=classes, **arguments)
    else:
        made = _run(where, name, {"num_classes": classes, "in_channels": channels}, arguments)
    if not isinstance(made, nn.Module):
        raise InputError(f"{config['source']} must give a torch.nn.Module, got {type(made)}.")
    return made


def _run(where: str, name: str, usual: dict[str, Any], arguments: dict[str, Any]) -> object:
    """What a function of the user's gives; its module may lie in the working folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(import_module(where), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Cannot find {where}:{name} ({error}); give package.module:function, from the folder "
            "that holds the package."
        ) from error
    takes = signature(function).parameters.values()
    every = any(each.kind is Parameter.VAR_KEYWORD for each in takes)
    names = {each.name for each in takes}
    passed = {key: value for key, value in usual.items() if every or key in names}
    return function(**passed, **arguments)


def _listed(values: object) -> object:
    return list(values) if isinstance(values, tuple) else values


def _usual_normalisation(config: dict[str, Any]) -> dict[str, list[float]]:
    """The library's own mean and std for a network of three channels; else none."""
    channels = require_count("The model's in_channels", config["in_channels"])
    library, _, name = config["source"].partition(":")
    mean, std = (0.0,) * min(channels, MOST), (1.0,) * min(channels, MOST)
    if channels == 3 and library in ARGUMENTS:
        mean, std = _IMAGENET
        own = timm_library().get_pretrained_cfg(name) if library == "timm" else None
        if own is not None:
            mean, std = own.mean, own.std
    return {"mean": list(mean), "std": list(std)}
