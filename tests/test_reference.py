"""The site's made pages hold everything that is public, and every public thing is described."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("mkdocs")
pytest.importorskip("latex2mathml")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return import_module("site_pages")


def test_every_public_function_and_class_has_a_description(made: ModuleType) -> None:
    bare = [
        f"{module.__name__}.{name}"
        for module in made.modules()
        for name, each in made.public(module).items()
        if callable(each)
        and getattr(each, "__module__", "").startswith("fastinterp")
        and not (each.__doc__ or "").strip()
    ]
    assert bare == []


def test_every_module_has_a_page_in_the_navigation(made: ModuleType) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for module in made.modules():
        assert f"reference/{module.__name__.removeprefix('fastinterp.')}.md" in navigation
        page = made.reference(module)
        for name in made.public(module):
            assert re.search(rf"(heading: |\[){re.escape(name)}\b", page), name
    for script in (ROOT / "examples").glob("*.py"):
        assert f"examples/{script.stem}.md" in navigation
    for notebook in (ROOT / "tutorials").glob("*.ipynb"):
        assert f"tutorials/{notebook.stem}.md" in navigation


def test_functions_are_described_as_functions(made: ModuleType) -> None:
    assert "::: fastinterp.ops.cam.cam\n" in made.reference(import_module("fastinterp.ops"))


def test_the_page_of_the_command_line_has_every_command(made: ModuleType) -> None:
    for name in ("train", "eval", "audit", "reproduce"):
        assert f"## fastinterp {name}\n" in made.commands()


def test_formulas_become_mathml_outside_of_code(made: ModuleType) -> None:
    class Page:
        class file:
            src_uri = "concepts.md"

    text = made.on_page_markdown("a $x^2$ b\n\n```\n$y$\n```\n\n`$z$`\n", page=Page)
    assert "<math" in text
    assert "x^2" not in text.replace("&#", "")
    assert "$y$" in text
    assert "`$z$`" in text
