"""Which code measured a row: what a figure depends on beside the network, the images and n."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import torch

from .._version import __version__

PACKAGE = Path(__file__).resolve().parents[2]


def versions(device: torch.device) -> dict[str, str | None]:
    """fastinterp's version and git commit (None where it is installed), torch's, and the device."""
    cuda = device.type == "cuda"
    return {
        "fastinterp": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
    }


def described(found: dict[str, str | None] | None) -> str:
    """The same in a few words."""
    if found is None:
        return "a version that did not say"
    at = f" at {found['commit']}" if found["commit"] else ""
    return f"fastinterp {found['fastinterp']}{at}, torch {found['torch']}, {found['device']}"


@cache
def commit() -> str | None:
    """The commit of a checkout, with a "+" where the package was changed since; None elsewhere.

    As it was when first asked for: files that change under a running program are not what runs.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    head = _git("rev-parse", "--short=10", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git("status", "--porcelain", "--", str(PACKAGE)) else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
