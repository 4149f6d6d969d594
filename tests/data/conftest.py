"""A small MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written import RANDOM, write_mnist


@pytest.fixture
def mnist_parts() -> dict[str, np.ndarray]:
    parts = {}
    for prefix, count in (("train", 7), ("t10k", 5)):
        images, labels = RANDOM.randint(0, 256, (count, 28, 28)), RANDOM.randint(0, 10, count)
        parts[f"{prefix}-images-idx3-ubyte"] = images.astype(np.uint8)
        parts[f"{prefix}-labels-idx1-ubyte"] = labels.astype(np.uint8)
    return parts


@pytest.fixture
def mnist(tmp_path: Path, mnist_parts: dict[str, np.ndarray]) -> Path:
    write_mnist(tmp_path / "MNIST" / "raw", mnist_parts)
    return tmp_path
