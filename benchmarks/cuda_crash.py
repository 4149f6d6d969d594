"""A pytest plugin that ends a worker whose GPU context is broken; pytest-xdist starts another.

After an illegal access every later CUDA call of a process fails with the same error, so one bad
kernel would fail all tests after it. With this plugin only its own test is reported as a crash; the
error is appended to the file that `CRASHES` names.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

CRASHES = "FASTINTERP_BENCH_CRASHES"


def gpu_answers() -> bool:
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    worker = hasattr(item.config, "workerinput")  # of pytest-xdist
    if call.excinfo is not None and worker and not gpu_answers():
        with Path(os.environ[CRASHES]).open("a", encoding="utf-8") as handle:
            handle.write(f"{item.nodeid} broke its process's GPU context:\n{report.longrepr}\n\n")
        os._exit(1)
    return report
