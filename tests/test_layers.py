"""Data flows one way: a folder imports only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fastinterp"
COMMON = {"convolution", "described", "device", "errors", "files", "require", "unpickle"}
COMMON |= {"_version"}
EARLY = {"ops", "models", "interpreters", "discrepancy", "attacks"}
BEFORE = {
    "ops": set(),
    "models": set(),
    "data": set(),
    "interpreters": {"ops", "models"},
    "discrepancy": {"ops", "models", "interpreters"},
    "named_interpreters": {"models", "interpreters"},
    "attacks": {"ops", "models", "interpreters", "discrepancy"},
    "training": {*EARLY, "data", "named_interpreters"},
    "evaluation": {*EARLY, "data", "named_interpreters"},
    **{name: set() for name in COMMON},  # what every room may use knows no room
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The top-level names inside fastinterp that a file imports."""
    package = ["fastinterp", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = base + (node.module or "").split(".")
            names = [[*parts, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for name in names:
            inside = [part for part in name if part]
            if inside[0] == "fastinterp" and len(inside) > 1:
                found.add(inside[1])
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) in BEFORE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_back(path: Path) -> None:
    room = room_of(path)
    allowed = BEFORE[room] | COMMON | {room}
    assert imported_rooms(path) <= allowed
