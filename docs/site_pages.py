"""Pages of the site that are made when it is built (`hooks` of mkdocs.yml).

Made from what they describe: a page for each public module, for the command line, for each script
of examples/, for each notebook of tutorials/ with what it printed and drew, for the changelog and
for csrc/README.md. Links to these files in pages of docs/ work
on GitHub as they are; here they become links to the made pages. Formulas become MathML, which
browsers draw without a script.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from base64 import b64decode
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

import fastinterp
from fastinterp.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[1]
GITHUB_FILES = {  # in the repository -> on the site
    "csrc/README.md": "adding-an-op.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "security.md",
}
FENCE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`|^    .*?$)", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    pages = {site: _moved(source) for source, site in GITHUB_FILES.items()}
    pages["commands.md"] = commands()
    for module in modules():
        pages[f"reference/{module.__name__.removeprefix('fastinterp.')}.md"] = reference(module)
    for script in sorted((ROOT / "examples").glob("*.py")):
        pages[f"examples/{script.stem}.md"] = example(script)
    made: dict[str, str | bytes] = {**pages}
    for notebook in sorted((ROOT / "tutorials").glob("*.ipynb")):
        made |= tutorial(notebook)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Turn links to files of the repository into links to pages, and formulas into MathML."""
    if page.file.src_uri == "reference.md":
        names = [module.__name__.removeprefix("fastinterp.") for module in modules()]
        markdown += "".join(f"\n- [{name}](reference/{name}.md)" for name in names)
    for source, site in GITHUB_FILES.items():
        markdown = markdown.replace(f"](../{source}", f"]({site}")
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    markdown = re.sub(r"\]\(\.\./tutorials/(\w+)\.ipynb\)", r"](tutorials/\1.md)", markdown)
    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else _formulas(part) for number, part in enumerate(parts))


def _formulas(text: str) -> str:
    """`$...$` and `$$...$$` as GitHub reads them -> MathML."""
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1], display="block"), text, flags=re.DOTALL)
    return re.sub(r"(?<![\w$])\$(\S(?:[^$\n]*\S)?)\$(?![\w$])", lambda m: convert(m[1]), text)


def modules() -> list[ModuleType]:
    """The package, and its public modules in the order of the alphabet."""
    names = [n for n in fastinterp.__all__ if isinstance(getattr(fastinterp, n), ModuleType)]
    inner = [import_module(f"fastinterp.{name}") for name in sorted(names)]
    return [fastinterp, *inner, import_module("fastinterp.attacks.unforeseen")]


def public(module: ModuleType) -> dict[str, object]:
    """What a module offers by its name, but for other modules and its version."""
    named = {name: getattr(module, name) for name in module.__all__ if name != "__version__"}
    return {name: each for name, each in named.items() if not isinstance(each, ModuleType)}


def reference(module: ModuleType) -> str:
    """A page with the description of every public name of a module."""
    about = (module.__doc__ or "").strip()
    lines = [f"# {module.__name__}", "", about, ""]
    for name, each in sorted(public(module).items(), key=lambda item: item[0].lower()):
        home, own = getattr(each, "__module__", ""), getattr(each, "__qualname__", "")
        if module is fastinterp and not home.startswith("fastinterp._") and own:
            # Its own page describes it.
            room = home.split(".")[1]
            lines.append(f"- [{name}]({room}.md#{home}.{own})")
        elif home.startswith("fastinterp") and own:
            lines.append(f"::: {home}.{own}\n    options:\n      heading: {name}\n")
        else:
            lines.append(f"::: {module.__name__}.{name}\n    options:\n      heading: {name}\n")
    return "\n".join(lines)


def commands() -> str:
    """What `fastinterp COMMAND --help` prints, for every command."""
    parser = build_parser()
    (choices,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = "".join(
        f"\n## fastinterp {name}\n\n```text\n{each.format_help()}```\n"
        for name, each in choices.choices.items()
    )
    return f"# The command line\n\n```text\n{parser.format_help()}```\n{helps}"


def example(script: Path) -> str:
    """A script of examples/: its first sentence as the title, then all of it."""
    code = script.read_text(encoding="utf-8")
    title, _, rest = (ast.get_docstring(ast.parse(code)) or script.stem).partition(":")
    return (
        f"# {title}\n\n{rest.partition(chr(10))[0].strip().capitalize()}\n\n```python\n{code}```\n"
    )


def tutorial(path: Path) -> dict[str, str | bytes]:
    """A notebook: its page, its pictures and, to download, itself."""
    here = f"tutorials/{path.stem}"
    text = path.read_text(encoding="utf-8")
    made: dict[str, str | bytes] = {f"{here}.ipynb": text}
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub(r"\]\(\.\./docs/", "](../", source)
            source = re.sub(r"\]\((\.\./examples/\w+)\.py\)", r"](\1.md)", source)
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if "text" in output:
                parts.append(f'```text title="Output"\n{"".join(output["text"]).rstrip()}\n```')
            else:
                name = f"{here}-{len(made)}.png"
                made[name] = b64decode("".join(output["data"]["image/png"]))
                parts.append(f"![{cell['metadata']['alt']}]({Path(name).name})")
    parts.append(f"[This page as a notebook]({path.name}), to run and to change.")
    return {**made, f"{here}.md": "\n\n".join(parts) + "\n"}


def _moved(source: str) -> str:
    """A page of the repository, with its links to docs/ as seen from there."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return re.sub(r"\]\((?:\.\./)?docs/", "](", text)
