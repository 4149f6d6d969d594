"""Builds and loads the GPU's kernels for a CPU, in one of three ways; only tests use them.

    emulation  the ops emulated_<op>: HostBlock runs each kernel's blocks one after another
    races      the ops device_<op>: the device code itself, one fiber for each thread; reports
               races, barriers that some threads never reach, and misaligned accesses
    bounds     the same under the address sanitizer; start the process with it preloaded

A library is compiled on first use and kept in build/device_code until a source changes.
`make check-device` runs the tests with the last two.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ALWAYS = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
ON_FIBERS = ["-DFI_GPU", "-g1", "-Wno-tsan", f"-I{HERE}", f"-I{HERE / 'fake'}"]
# The flags of each source. Fibers and shadow memory must not be watched themselves.
WATCHERS = {source: [*ON_FIBERS, "-O2"] for source in ("fibers.cpp", "shadow.cpp")}
SOURCES = {
    "emulation": {"emulation.cpp": ["-O2", "-g0"]},
    "races": {"device_code.cpp": [*ON_FIBERS, "-O1", "-fsanitize=thread"], **WATCHERS},
    "bounds": {"device_code.cpp": [*ON_FIBERS, "-O1", "-fsanitize=address"], **WATCHERS},
}


def build(how: str) -> Path:
    """Compile the library if it is missing or older than a source; return its path."""
    folder = ROOT / "build" / "device_code" / f"{how}-torch-{torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "device_code.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes run side by side: one of them compiles
        if not library.exists() or library.stat().st_mtime < _newest_source():
            _compile(library, SOURCES[how])
    return library


def _newest_source() -> float:
    headers = [*HERE.rglob("*.h"), *(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh")]
    return max(path.stat().st_mtime for path in [*headers, *HERE.glob("*.cpp"), Path(__file__)])


def _compile(library: Path, sources: dict[str, list[str]]) -> None:
    include = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    objects = []
    for source, flags in sources.items():
        objects.append(str(library.parent / f"{Path(source).stem}.o"))
        command = ["g++", *ALWAYS, *flags, *include, "-c", str(HERE / source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    libraries = [f"-L{folder}" for folder in cpp_extension.library_paths()]
    linked = library.with_suffix(".tmp")
    command = ["g++", "-shared", *objects, *libraries, "-lc10", "-ltorch_cpu", "-ldl"]
    subprocess.run([*command, "-o", str(linked)], check=True)
    linked.replace(library)


def load(how: str) -> None:
    """Register the library's ops, compiling it first where needed."""
    torch.ops.load_library(str(build(how)))


if __name__ == "__main__":
    print(build(sys.argv[1]))
