"""Training the networks that a table or figure needs and a folder does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import training
from .._utils import processes
from .._utils.errors import InputError
from ..training import Recipe
from .networks import SCALES, Network, find_network


def train_missing(
    needed: Sequence[Network],
    folder: Path,
    data_dir: str | Path | None,
    *,
    quick: bool,
    device: torch.device,
    progress: bool = True,
) -> list[Path]:
    """Train networks by their recipes, one after the other; a stopped run continues.

    A line is printed for each. All recipes are looked up before the first training begins.

    Args:
        needed: the networks; those that `folder` holds are not trained.
        folder: where the networks are and the runs are written; made if it is missing.
        data_dir: folder that holds the data sets.
        quick: train by the short recipes, and accept networks of those.
        device: where to train.
        progress: show bars.

    Returns:
        The folders of the runs.

    Raises:
        InputError: a network has no recipe of this kind, or its data are missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder}: {error.strerror}.") from error
    scales = SCALES if quick else SCALES[:1]
    missing = processes.from_first(
        lambda: [each for each in needed if find_network(folder, each, scales) is None]
    )
    plans = [(folder / name, recipe) for name, recipe in (_plan(each, quick) for each in missing)]
    if quick and plans:
        print(
            "The quick recipes are not the paper's: cells of their networks are not held against "
            "the paper's figures."
        )
    for number, (out, recipe) in enumerate(plans, 1):
        print(
            f"training {out.name} ({number} of {len(plans)}): {recipe.description}, "
            f"{recipe.epochs} epochs, into {out}",
            flush=True,
        )
        training.run_recipe(recipe, data_dir, out, resume=True, device=device, progress=progress)
    return [out for out, _ in plans]


def _plan(network: Network, quick: bool) -> tuple[str, Recipe]:
    """The name of the run that trains a network, and its recipe."""
    name = network.quick_recipe if quick else network.recipe
    if name is None:
        raise InputError(
            f"--train quick is for MNIST Small only and cannot train {network}; give --train full, "
            "or choose networks by --only."
        )
    if name not in training.list_recipes():
        raise InputError(
            f"No recipe trains {network}; put its file into --networks, or choose others by --only."
        )
    overrides = {} if network.gamma is None else {"gamma": network.gamma}
    return network.run(name), training.load_recipe(name, overrides)
