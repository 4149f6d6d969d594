"""The accuracy of a network under PGD, as rows of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import models
from ...evaluation.accuracy import sweep
from ...evaluation.protocols import paper_selection
from ..networks import Network, network_and_recipe
from ..results import ResultRow
from .figure import Setting

STEPS = 200


def accuracies(
    setting: Setting, network: Network, path: Path | None, eps: Sequence[float], **about: Any
) -> list[ResultRow]:
    """A row for each eps; accuracy is None where there is no file.

    Rows of an earlier run are used if they are of the same file, or if no folder of networks was
    given.

    Args:
        setting, network: what is measured, and how.
        path: the network's file.
        eps: radii.
        about: further entries of the rows, which tell them from those of other networks.
    """
    source = network_and_recipe(path)
    about = {"method": network.method, **about}
    known = [row for row in setting.known.rows if about.items() <= row.items()]
    same = all(row["network"] == source["network"] for row in known)
    if known and (setting.networks is None or same):
        return known
    shared = {"dataset": network.dataset, "model": network.model, **about, **source}
    if path is None:
        cells = [{"eps": e, "steps": STEPS, "accuracy": None, "n": setting.n} for e in eps]
        return [{**shared, **cell} for cell in cells]
    images = setting.images(network.dataset)
    selected, _ = paper_selection(len(images), setting.n, num_classes=images.num_classes)
    found = sweep(
        models.load(path, map_location=setting.device),
        images.float(selected),
        images.labels[selected],
        eps=eps,
        steps=[STEPS],
        progress=setting.progress,
    )
    return [{**shared, **row} for row in found]


def with_later(setting: Setting, rows: list[ResultRow], key: str) -> list[ResultRow]:
    """Rows, and those of an earlier run for what is not measured yet."""
    done = {row[key] for row in rows}
    return [*rows, *(row for row in setting.known.rows if row[key] not in done)]
