"""Every notebook of tutorials/ runs, and shows what its own code printed and drew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from tutorials.run import NOTEBOOKS, code_of, execute, read

ROOT = Path(__file__).resolve().parents[1]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook) -> list[list[str]]:
    """What the outputs of each code cell are: texts, by stream, or pictures."""
    return [
        [output.get("name") or "+".join(output.data) for output in cell.outputs]
        for cell in code_cells(notebook)
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_the_code(path: Path) -> None:
    notebook = read(path)
    cells = code_cells(notebook)
    assert notebook.metadata["code"] == code_of(notebook), "changed since it ran: make tutorials"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    printed = "".join(output.get("text", "") for output in outputs)
    assert re.findall(r"/(?:home|root|tmp|usr|work)/\S*|\.venv\S*", printed) == []
    pictured = [c for c in cells if any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert all(cell.metadata.get("alt") for cell in pictured), "a picture without a description"
    assert path.stat().st_size < 300_000


def test_each_is_listed_and_linked() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert set(re.findall(r"tutorials/(\w+)\.ipynb\)", page)) == {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path) -> None:
    """Without an error, and to outputs of the same kinds; their figures depend on the machine."""
    assert kinds(execute(path)) == kinds(read(path))
