"""Reading the words of the command line: a parser that answers in a sentence, kinds of values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, NoReturn

from .._utils.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse, but errors are InputErrors, and a misspelt choice is met with a suggestion."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}{self._about_order(message)}; see `{self.prog} --help`.")

    def _about_order(self, message: str) -> str:
        """An option that takes several values takes what stands behind it for one of them."""
        greedy = [a for a in self._actions if a.nargs == "+" and a.option_strings]
        at_fault = any(message.startswith(f"argument {a.option_strings[0]}:") for a in greedy)
        if at_fault or (greedy and message.startswith("the following arguments are required")):
            first = next((a.metavar for a in self._actions if not a.option_strings), None)
            return "" if first is None else f" ({first} stands before the options)"
        return ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _suggest(str(value), action.choices))


def _suggest(value: str, known: Iterable[Any]) -> str:
    names = [str(name) for name in known]
    near = get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return f"there is no {value!r}, {hint}"


def number(text: str) -> float:
    """A number >= 0, also as a fraction such as 8/255."""
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.1 or 8/255") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def count(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def count_or_all(text: str) -> int | None:
    """A whole number >= 1; None for "all"."""
    return None if text == "all" else count(text)


def seed(text: str) -> int:
    """A whole number >= 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 up, got {text!r}")
    return int(text)


def index(text: str) -> int:
    """A whole number >= 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a position 0, 1, 2, ...")
    return int(text)
