"""The accuracy of a network under PGD, as rows of a figure that can go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import models
from ...evaluation.accuracy import sweep
from ...evaluation.protocols import paper_selection
from ..networks import Network, network_name, recipe_of
from .figure import Rows, Setting

STEPS = 200


def accuracies(
    setting: Setting, network: Network, path: Path | None, eps: Sequence[float], **about: Any
) -> Rows:
    """A row for each eps; accuracy is None where there is no file.

    Rows of an earlier run are taken where they are of the same file, and, where no folder of
    networks was given, as they are.

    Args:
        setting, network: what is measured, and where.
        path: its file.
        eps: radii.
        about: further entries of the rows, which tell them from those of other networks.
    """
    name = None if path is None else network_name(path)
    about = {"method": network.method, **about}
    known = [row for row in setting.known.rows if about.items() <= row.items()]
    if known and (setting.networks is None or all(row["network"] == name for row in known)):
        return known
    shared = {
        "dataset": network.dataset,
        "model": network.model,
        **about,
        "network": name,
        "recipe": None if path is None else recipe_of(path),
    }
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


def with_later(setting: Setting, rows: Rows, key: str) -> Rows:
    """Rows, and what an earlier run has left of those that are not measured yet."""
    done = {row[key] for row in rows}
    return [*rows, *(row for row in setting.known.rows if row[key] not in done)]
