"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

# Small tensors gain nothing from more threads, which on a busy machine wait for each other. Set
# before torch is loaded, so that processes started by tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `cuda`, with the reason, where they cannot run."""
    from fastinterp import build_info

    if not torch.cuda.is_available():
        reason = "no CUDA GPU here"
    elif not build_info()["cuda"]:
        reason = "the CUDA kernels were not built"
    else:
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def shared() -> Path:
    """The folder with real data and the authors' networks, if one lies beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder with the real data and the released networks is not here")
    return SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
