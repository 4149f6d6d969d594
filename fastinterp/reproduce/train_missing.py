"""Training the networks that a table or figure needs and a folder does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import training
from .._utils.errors import InputError
from ..training import Recipe
from . import Network, find_network
from .networks import SCALES

QUICK = (
    "Networks of the quick recipes are not those of the paper: their cells are not held against "
    "the paper's figures."
)


def train_missing(
    needed: Sequence[Network],
    folder: Path,
    data_dir: str | Path | None,
    *,
    quick: bool,
    device: torch.device,
    progress: bool = True,
) -> list[Path]:
    """Train networks by their recipes, one after the other; a stopped run goes on.

    A line for each says what begins. Whether there is a recipe for each is known before the first.

    Args:
        needed: the networks; those that `folder` holds are left alone.
        folder: where networks are and where the runs go; made if it is not there.
        data_dir: folder that holds the data sets.
        quick: take the short recipes, and be content with networks of those.
        device: where to train.
        progress: show bars.

    Returns:
        The folders of the runs.

    Raises:
        InputError: a network has no recipe of this kind, or its data are not there.
    """
    _make(folder)
    scales = SCALES if quick else SCALES[:1]
    missing = [each for each in needed if find_network(folder, each, scales) is None]
    plans = [(folder / name, recipe) for name, recipe in (_plan(each, quick) for each in missing)]
    if quick and plans:
        print(QUICK)
    for number, (out, recipe) in enumerate(plans, 1):
        print(
            f"training {out.name} ({number} of {len(plans)}): {recipe.description}, "
            f"{recipe.epochs} epochs, into {out}",
            flush=True,
        )
        training.run_recipe(recipe, data_dir, out, resume=True, device=device, progress=progress)
    return [out for out, _ in plans]


def _plan(network: Network, quick: bool) -> tuple[str, Recipe]:
    """The name of the run that makes a network, and its recipe."""
    name = network.quick_recipe if quick else network.recipe
    if name is None:
        raise InputError(
            f"--train quick is for MNIST Small alone, and there is no {network}; "
            "give --train full, or choose by --only."
        )
    if name not in training.list_recipes():
        raise InputError(
            f"no recipe trains {network}; put the network itself into --networks, or choose others "
            "by --only."
        )
    overrides = {} if network.gamma is None else {"gamma": network.gamma}
    return network.run(name), training.load_recipe(name, overrides)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}.") from error
