"""Run the notebooks of this folder and store in them what they print and draw: `make tutorials`."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 600  # for a cell, on a busy machine
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(notebook: NotebookNode) -> str:
    """The SHA-256 of the code cells, which `execute` stores beside their outputs."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def execute(path: Path) -> NotebookNode:
    """Run a notebook from its first cell to the last, in an empty folder, with this Python.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = read(path)
    where = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"})
    for output in (each for cell in notebook.cells for each in cell.get("outputs", [])):
        if output.output_type == "stream":  # warnings begin with a temporary file of this run
            output.text = re.sub(r"^\S*ipykernel_\d+\S*: ", "", output.text, flags=re.M)
        elif "image/png" in output.data:
            output.data = NotebookNode({"image/png": _smaller(output.data["image/png"])})
    notebook.metadata = NotebookNode(**METADATA, code=code_of(notebook))
    return notebook


def _smaller(png: str) -> str:
    """The picture with 256 colours, a third of the bytes; base64, as notebooks hold it."""
    with Image.open(BytesIO(b64decode(png))) as picture, BytesIO() as file:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        few.save(file, format="png", optimize=True)
        return b64encode(file.getvalue()).decode()


def main() -> None:
    wanted = [Path(word).resolve() for word in sys.argv[1:]] or NOTEBOOKS
    for path in wanted:
        print(path.name, flush=True)
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main()
