"""An argument parser whose errors are single sentences, and the types of arguments."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from .._utils.errors import InputError
from .._utils.keywords import OURS
from .._utils.require import number_in, suggest
from ..data.load import NAMES, known_name
from ..models.names import is_source
from ..training.families import TITLES

MOST = 2**31 - 1  # of images, steps and the like


class Parser(argparse.ArgumentParser):
    """argparse, but errors are InputErrors, and a misspelt or misplaced option gets a suggestion.

    Attributes:
        settings: what is set by --set KEY=VALUE, if the command has that.
    """

    settings: Sequence[str] = ()

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        advice = "" if message.endswith("?") else f"; see `{self.prog} --help`."
        raise InputError(f"{message.rstrip('.')}{self._about_order(message)}{advice}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"there is no argument {unknown[0]!r}, {self._instead(unknown)}")
        return parsed, unknown

    def _instead(self, unknown: Sequence[str]) -> str:
        """What to write for the first of the words that nobody knows."""
        options = [name for action in self._actions for name in action.option_strings]
        word, _, value = unknown[0].partition("=")
        if word == "--set":
            key, equals, value = (value or " ".join(unknown[1:2])).partition("=")
            if equals and _option(key) in options:
                return f"write {_option(key)} {value}"
        name = word.lstrip("-").replace("-", "_")
        name = OURS.get(name, name)
        if word.startswith("--") and _option(name) in options:
            return f"did you mean {_option(name)!r}?"
        settings = {_option(key): key for key in self.settings}
        near = get_close_matches(_option(name), [*options, *settings], n=1)
        if word.startswith("--") and near and near[0] in settings:
            return f"write --set {settings[near[0]]}=VALUE"
        return suggest(word, options)

    def _about_order(self, message: str) -> str:
        """Advice where an option with several values may have taken the positional argument."""
        first = next((a.metavar for a in self._actions if not a.option_strings), None)
        several = [a.option_strings[0] for a in self._actions if a.nargs == "+" and first]
        taken = any(message.startswith(f"argument {name}:") for name in several)
        missing = bool(several) and f"required: {first}" in message
        if missing or (taken and re.search(r"'[^']*[a-zA-Z][^']*' is not", message)):
            return f" (write {first} before the options)"
        return ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = suggest(value, map(str, action.choices))
            raise argparse.ArgumentError(action, f"there is no {value!r}, {hint}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def number(text: str) -> float:
    """A number >= 0, which may be a fraction such as 8/255."""
    try:
        value = number_in(text)
    except (ValueError, ArithmeticError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.1 or 8/255") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; give a number >= 0")
    return value


def count(text: str) -> int:
    """A whole number >= 1."""
    return _whole(text, 1, MOST)


def count_or_all(text: str) -> int | None:
    """A whole number >= 1; None for "all"."""
    return None if text == "all" else count(text)


def seed(text: str) -> int:
    """A whole number that NumPy and torch take as a seed."""
    return _whole(text, 0, 2**32 - 1)


def dataset(text: str) -> str:
    """The name of a data set, in any case."""
    try:
        return known_name(text)
    except InputError:
        raise argparse.ArgumentTypeError(f"there is no {text!r}, {suggest(text, NAMES)}") from None


def network(text: str) -> str:
    """The name of one of the paper's networks, or a source such as timm:NAME."""
    if text in TITLES or is_source(text):
        return text
    hint = suggest(text, TITLES)
    raise argparse.ArgumentTypeError(
        f"there is no {text!r}, {hint.rstrip('?.')}, or write timm:NAME, torchvision:NAME or "
        "package.module:function"
    )


def argument(text: str) -> tuple[str, Any]:
    """KEY=VALUE: a number, true or false, or a word."""
    key, equals, value = text.partition("=")
    if not key.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as global_pool=avg")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def index(text: str) -> int:
    """A whole number >= 0."""
    return _whole(text, 0, MOST)


def _whole(text: str, least: int, most: int) -> int:
    """A whole number in least..most."""
    if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        bounds = f">= {least}" if most == MOST and len(text) < 10 else f"in {least}..{most}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
    return int(text)
