"""The recipes that come with fastinterp: one file of settings a data set, names made from parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from .._utils.errors import InputError
from .._utils.files import read_file
from .._utils.require import require_known_name, require_one_of
from ..models.names import is_source
from .methods import METHODS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TITLES = {"small": "Small", "pool": "Pool", "wresnet": "WResnet"}


class Family(NamedTuple):
    """The recipes of one data set: a file of fastinterp's own.

    Attributes:
        name: name of the file.
        title: what descriptions call it.
        networks: networks for which `list_recipes` shows recipes; the first is the default.
        settings: of every recipe, except for the network and the method.
        methods: methods that the settings are for.
        short_names: names of the default network leave the network out.
    """

    name: str
    title: str
    networks: list[str]
    settings: dict[str, Any]
    methods: Sequence[str] = tuple(METHODS)
    short_names: bool = False

    @property
    def pattern(self) -> str:
        """Its recipes' names, with NETWORK and METHOD for parts that vary."""
        method = "METHOD" if len(self.methods) > 1 else self.methods[0]
        return f"{self.name}-{method}" if self.short_names else f"{self.name}-NETWORK-{method}"

    def recipe_name(self, network: str, method: str) -> str:
        if self.short_names and network == self.networks[0]:
            return f"{self.name}-{method}"
        return f"{self.name}-{network}-{method}"


@cache
def families() -> dict[str, Family]:
    """The families of recipes that come with fastinterp, by name."""
    paths = Path(str(files("fastinterp.training"))).glob("recipes/*.toml")
    every = [Family(path.stem, **read_toml(path)) for path in paths]
    return {family.name: family for family in sorted(every)}


def list_recipes() -> list[str]:
    """The names of the recipes that come with fastinterp, in order."""
    return sorted(
        family.recipe_name(network, name)
        for family in families().values()
        for network in family.networks
        for name in family.methods
    )


def recipe_name(family: str, network: str | None = None, method: str = "int") -> str:
    """The name of the recipe with these parts.

    Args:
        family: a data set, or mnist-quick for a short run on MNIST.
        network: small, pool or wresnet, or timm:NAME, torchvision:NAME, package.module:function;
            None takes the family's default.
        method: one of `METHODS`.

    Raises:
        InputError: a part is unknown, or the family has no settings for the method.
    """
    of = families()[require_known_name("family of recipes", family, families())]
    network = of.networks[0] if network is None else network
    if not is_source(network):
        require_known_name("network", network, TITLES)
    require_known_name("training method", method, METHODS)
    require_one_of(f"The method of a {family} recipe", method, of.methods)
    return of.recipe_name(network, method)


def settings_of(name: str) -> dict[str, Any]:
    """The settings of one of fastinterp's own recipes."""
    names: dict[str, tuple[Family, str, str]] = {}
    for family in families().values():
        for way in family.methods:
            names[f"{family.name}-{way}"] = (family, family.networks[0], way)
            names |= {f"{family.name}-{net}-{way}": (family, net, way) for net in TITLES}
            start, end = f"{family.name}-", f"-{way}"
            source = name.removeprefix(start).removesuffix(end)
            if is_source(source) and name == f"{start}{source}{end}":
                names[name] = (family, source, way)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`fastinterp train --list` shows them."
        raise InputError(f"There is no recipe {name!r}; {hint}")
    family, network, way = names[name]
    return family.settings | {
        "name": family.recipe_name(network, way),
        "description": f"{family.title}, {TITLES.get(network, network)}: {METHODS[way].title}",
        "model": network,
        "method": way,
    }


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
