"""Networks in a folder, as `fastinterp train` leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fastinterp import data, models


@pytest.fixture(scope="session")
def digits_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of networks with a Small that can tell digits apart."""
    digits = data.load("digits", split="train")
    model = models.small(seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(3):
        for x, y in digits.batches(64, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    folder = tmp_path_factory.mktemp("networks")
    models.save(model, folder / "digits-small-normal" / "model.safetensors")
    return folder
