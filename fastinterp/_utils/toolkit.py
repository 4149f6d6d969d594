"""Finding the CUDA toolkit, for set-up and for `fastinterp doctor`. Imports no other module of
fastinterp, because setup.py loads this file by its path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its folder, and the version of its nvcc, such as "13.0"."""

    home: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_toolkit() -> Toolkit | None:
    """The first complete toolkit, or None.

    The search goes through CUDA_HOME and CUDA_PATH, the folder of the nvcc on PATH, and /usr/local
    (newest first). The nvcc on PATH may be a script that calls another, so a folder counts only if
    it has both bin/nvcc and the header of the runtime.
    """
    for home in _candidates():
        nvcc = home / "bin" / "nvcc"
        includes = [home / "include", *home.glob("targets/*/include")]
        if nvcc.is_file() and any((folder / "cuda_runtime.h").is_file() for folder in includes):
            version = _version(nvcc)
            if version is not None:
                return Toolkit(home.resolve(), version)
    return None


def _candidates() -> list[Path]:
    found = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        found.append(Path(nvcc).resolve().parent.parent)
    usual = Path("/usr/local")
    return [*found, usual / "cuda", *sorted(usual.glob("cuda-*"), key=_numbers, reverse=True)]


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _version(nvcc: Path) -> str | None:
    try:
        answer = subprocess.run(
            [str(nvcc), "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"release (\d+\.\d+)", answer.stdout)
    return match.group(1) if match else None
