"""The names of networks that the caller or a file may choose, and the checks of their configs.

A checkpoint may name a network of timm or torchvision, with a few plain arguments: it can only
choose from the models that the library lists. A function runs only where the caller names it.
"""

from __future__ import annotations

import math
import re
from functools import cache
from importlib import import_module
from numbers import Real
from typing import Any

from .._utils.errors import InputError
from .._utils.require import require_count, require_one_of, suggest
from .networks import MOST

_SHAPE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)?", re.ASCII)
KEYS = {"source", "in_channels", "num_classes", "mean", "std", "arguments"}
# What a file may pass on to a library; others would read files, fetch weights or run code.
_TIMM = "global_pool img_size patch_size window_size dynamic_img_size class_token reg_tokens "
_TIMM += "drop_rate drop_path_rate attn_drop_rate proj_drop_rate output_stride"
_TORCHVISION = "dropout attention_dropout stochastic_depth_prob image_size"
ARGUMENTS = {"timm": _TIMM.split(), "torchvision": _TORCHVISION.split()}


def is_source(text: object) -> bool:
    """Whether a text has the form of a source: timm:NAME, torchvision:NAME, module:function."""
    return isinstance(text, str) and _SHAPE.fullmatch(text) is not None


def is_function(text: object) -> bool:
    """Whether a text names a function of the user's, which no file may choose."""
    return is_source(text) and str(text).partition(":")[0] not in ARGUMENTS


def timm_library() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise InputError(
            "timm:NAME needs timm, which is not installed; install it with `pip install timm`."
        ) from error


@cache
def names_of(library: str) -> frozenset[str]:
    """The classifiers that a library lists."""
    if library == "timm":
        return frozenset(timm_library().list_models())
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


def check_source(source: object) -> None:
    if not is_source(source):
        raise InputError(
            "A source must be timm:NAME, torchvision:NAME or package.module:function, "
            f"got {source!r}."
        )
    library, _, name = str(source).partition(":")
    if library in ARGUMENTS:
        known = names_of(library)
        bare = name.partition(".")[0] if library == "timm" else name  # without timm's tag
        if bare not in known:
            raise InputError(f"There is no network {source!r}; {_suggest(bare, known)}")


def _suggest(name: str, known: frozenset[str]) -> str:
    hint = suggest(name, known)
    return hint if hint.startswith("did") else f"{len(known)} others are listed by the library."


def check_config(config: dict[str, Any], trust: str | None) -> None:
    """Raise unless a config with a source is complete, harmless, and no function but `trust`."""
    if set(config) != KEYS:
        raise InputError(
            f"A config with a source must have exactly the keys {', '.join(sorted(KEYS))}, "
            f"got {config!r}."
        )
    source, arguments = config["source"], config["arguments"]
    check_source(source)
    if is_function(source) and source != trust:
        raise InputError(
            f"This network is made by the function {source}, which a file may not run; if you "
            f"trust it, pass trust={source!r}, or build the network and pass it as into=."
        )
    for key in ("in_channels", "num_classes"):
        if require_count(f"The model's {key}", config[key]) > MOST:
            raise InputError(f"The model's {key} must be at most {MOST}, got {config[key]!r}.")
    for key in ("mean", "std"):
        _require_per_channel(key, config[key], config["in_channels"])
    if not isinstance(arguments, dict):
        raise InputError(f"The model's arguments must be a dict, got {arguments!r}.")
    if not is_function(source):
        for key, value in arguments.items():
            allowed = ARGUMENTS[source.partition(":")[0]]
            require_one_of(f"An argument of {source}", key, allowed)
            if not _is_plain(value):
                raise InputError(f"The model's {key} must be a number or a word, got {value!r}.")


def _require_per_channel(key: str, values: object, channels: int) -> None:
    numbers = isinstance(values, (list, tuple)) and all(
        isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
    if not numbers or len(values) != channels:  # type: ignore[arg-type]
        raise InputError(f"The model's {key} must be {channels} finite numbers, got {values!r}.")
    if key == "std" and min(values) <= 0:  # type: ignore[call-overload]
        raise InputError(f"The model's std must be above 0, got {values!r}.")


def _is_plain(value: object) -> bool:
    """A word, or a number or two of the size that images have."""
    if isinstance(value, (list, tuple)):
        return len(value) == 2 and all(isinstance(one, int) and _is_plain(one) for one in value)
    if isinstance(value, str):
        return re.fullmatch(r"\w{0,32}", value, re.ASCII) is not None
    return isinstance(value, (bool, int, float)) and 0 <= value <= 4096
