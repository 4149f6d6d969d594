"""Builds and loads the GPU's device code for a CPU: the ops device_<op>, as device_code.cpp says.

    make check-device

`watching` is "races" (who may read and write at once, barriers that not all reach, misaligned
accesses) or "bounds" (the address sanitizer; the process must have been started with it).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SANITIZER = {"races": "-fsanitize=thread", "bounds": "-fsanitize=address"}


def flags() -> list[str]:
    include = [HERE, HERE / "fake", *cpp_extension.include_paths()]
    return [
        *("-std=c++20", "-g1", "-fPIC", "-DFI_GPU", "-Wno-tsan", "-Wno-psabi"),
        *(f"-I{folder}" for folder in include),
    ]


def build(watching: str) -> Path:
    """Compile what is out of date; the library's path."""
    folder = ROOT / "build" / f"device_code-{watching}"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "device_code.so"
    sources = [*HERE.rglob("*.h"), *HERE.glob("*.cpp"), *(ROOT / "csrc").rglob("*.h")]
    newest = max(path.stat().st_mtime for path in [*sources, Path(__file__)])
    if library.exists() and library.stat().st_mtime > newest:
        return library
    objects = []
    for source in sorted(HERE.glob("*.cpp")):
        # The watchers themselves are not watched.
        watched = source.name == "device_code.cpp"
        how = ["-O1", SANITIZER[watching]] if watched else ["-O2"]
        objects.append(folder / f"{source.stem}.o")
        command = ["g++", *flags(), *how, "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    libraries = [f"-L{folder}" for folder in cpp_extension.library_paths()]
    command = ["g++", "-shared", *map(str, objects), *libraries, "-lc10", "-ltorch_cpu", "-ldl"]
    linked = library.with_suffix(".tmp")
    subprocess.run([*command, "-o", str(linked)], check=True)
    linked.replace(library)
    return library


def load(watching: str) -> None:
    torch.ops.load_library(str(build(watching)))


if __name__ == "__main__":
    print(build(sys.argv[1]))
