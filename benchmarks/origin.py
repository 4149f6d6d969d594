"""Which commit's code is measured, also where a folder was copied without its git repository."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACK = "FASTINTERP_BENCH_PACK"  # names the folder that benchmarks/gpu_pack.py wrote
FILE = "origin.json"
SUFFIXES = ("h", "cuh", "inc", "cpp", "cu")
KERNELS = (*(f"csrc/**/*.{suffix}" for suffix in SUFFIXES), "setup.py")
LIBRARY = (*KERNELS, "fastinterp/**/*.py", "fastinterp/**/*.toml")
CODE = (*LIBRARY, "benchmarks/*.py", "tests/**/*.py", "pyproject.toml")


def commit() -> dict[str, Any]:
    """{commit, modified}: from git, else from the pack; both None where neither knows."""
    if (ROOT / ".git").exists():
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*/results/*")
        if head is not None and changes is not None:
            return {"commit": head, "modified": bool(changes)}
    if PACK not in os.environ:
        return {"commit": None, "modified": None}
    packed = json.loads((Path(os.environ[PACK]) / FILE).read_text(encoding="utf-8"))
    same = packed["code"] == digest(CODE)
    return {"commit": packed["commit"], "modified": packed["modified"] or not same}


def digest(patterns: tuple[str, ...]) -> str:
    """Of the names and contents of files."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return found.hexdigest()


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
