"""The bar that long measurements show."""

from __future__ import annotations

from typing import Any


def progress_bar(total: int, unit: str, progress: bool) -> Any:
    """A tqdm bar, for a `with`; hidden where standard error is no terminal or nobody wants it."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None if progress else True)
