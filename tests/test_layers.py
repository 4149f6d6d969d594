"""Imports flow one way: a folder imports only what stands before it, and files form no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fastinterp"
ROOT_FILES = {"__init__.py", "__main__.py", "_version.py"}
# Each folder may import those before it.
ORDER = ["_utils", "ops", "models", "data", "interpreters", "attacks", "training", "evaluation"]
ORDER += ["reproduce", "cli"]
FORBIDDEN = {("data", "models"), ("data", "ops"), ("evaluation", "training")}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it, also for types alone."""
    parts = module_of(path).split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] + [base]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        modules = [name for name in names if name in MODULES]
        # `from .a import b`: the module a.b where there is one, else a, which defines b.
        found |= set(modules if len(modules) < len(names) else modules[:-1])
    return found - {module_of(path)}


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def folder_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_the_root_holds_folders_and_three_files() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT_FILES
    folders = {
        path.parent.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE
    }
    assert folders == set(ORDER)


@pytest.mark.parametrize("folder", ORDER)
def test_imports_point_back(folder: str) -> None:
    before = {*ORDER[: ORDER.index(folder) + 1], "_version"}
    for module, imported in IMPORTS.items():
        if folder_of(module) == folder:
            folders = {folder_of(name) for name in imported}
            assert folders <= before, module
            assert not {(folder, name) for name in folders} & FORBIDDEN, module


def reachable(module: str) -> set[str]:
    """The modules that a module imports, and those that these import."""
    found: set[str] = set()
    left = [module]
    while left:
        new = IMPORTS[left.pop()] - found
        found |= new
        left += new
    return found


def test_no_circle_of_files() -> None:
    circles = {module for module in MODULES if module in reachable(module)}
    assert circles == set()
