"""The documentation's reference names everything that is public, and nothing that is not there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import fastinterp

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
ENTRIES = re.findall(r"^::: (\S+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
ROOMS = [
    "fastinterp",
    *(
        f"fastinterp.{name}"
        for name in fastinterp.__all__
        if isinstance(getattr(fastinterp, name), ModuleType)
    ),
    "fastinterp.attacks.unforeseen",
]


def found(entry: str) -> object:
    """What a dotted name leads to, imported where it is a module."""
    room, _, name = entry.rpartition(".")
    return getattr(import_module(room), name)


def public(room: ModuleType) -> set[str]:
    """The names that a module offers, but for other modules and its version."""
    return {
        name
        for name in room.__all__
        if name != "__version__" and not isinstance(getattr(room, name), ModuleType)
    }


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(room: str) -> None:
    module = import_module(room)
    described = [found(entry) for entry in ENTRIES]
    if any(each is module for each in described):
        return  # the whole module stands there
    missing = {
        name
        for name in public(module)
        if not any(getattr(module, name) is each for each in described)
    }
    assert not missing


def test_the_rooms_are_found() -> None:
    assert {"fastinterp.attacks", "fastinterp.evaluation", "fastinterp.training"} <= set(ROOMS)
    assert len(ENTRIES) == len(set(ENTRIES))


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_has_a_description(entry: str) -> None:
    described = found(entry)
    if callable(described) and getattr(described, "__module__", "").startswith("fastinterp"):
        assert (described.__doc__ or "").strip()
