"""`fastinterp demo`: what Int training does, in a few minutes, on data that come built in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import data, evaluation, training
from .._utils.errors import InputError
from .._utils.files import write_json
from ..data import ImageData
from ..evaluation.comparison import Contender, comparison_figure
from ..evaluation.pictures import save_picture
from ..evaluation.tables import format_accuracy, format_eps, text_table
from ..models import GapClassifier
from ..training.recipe import Trained

RECIPES = {"normal": "digits-small-normal", "int": "digits-small-int"}
RADII = (0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2)
EPS = 0.1  # that of `robust_accuracy` and of the pictures
STEPS = 40


def run_demo(
    out: str | Path,
    device: str | torch.device = "cpu",
    *,
    overrides: Mapping[str, Any] | None = None,
    n: int | None = None,
    pictured: int = 2,
) -> dict[str, Any]:
    """Train Normal and Int on digits, attack both, and write metrics.json and demo.png.

    Goes on where an earlier, interrupted demo in the same folder stopped.

    Args:
        out: folder for the two runs and the results.
        device: where to train and attack.
        overrides: changes to both recipes.
        n: how many test images are attacked, the first ones; None: all.
        pictured: how many images the picture shows.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: `out` is a file, or holds runs of other settings.
    """
    out = Path(out)
    if out.is_file():
        raise InputError(f"--out names a file, {out}; give the name of a folder.")
    began = time.monotonic()
    test = data.load("digits", device=device)
    test = test if n is None else test.subset(slice(0, n))
    print(f"1/3  Training Normal and Int on digits (built in), on {device}; files go to {out}.")
    trained = {method: _train(method, out / method, device, overrides or {}) for method in RECIPES}
    print(f"2/3  Attacking both: PGD, {STEPS} steps, {len(test)} test images, {len(RADII)} radii.")
    rows = {method: _attack(one.model, test) for method, one in trained.items()}
    print("3/3  Drawing class activation maps, clean and attacked.")
    chosen = _pictured([one.model for one in trained.values()], test, pictured)
    contenders = [
        Contender(
            method.capitalize(),
            one.history,
            rows[method],
            evaluation.explain(one.model, test.float(chosen), test.labels[chosen], eps=EPS),
        )
        for method, one in trained.items()
    ]
    save_picture(comparison_figure(contenders, test.classes, EPS), out / "demo.png")
    metrics = {
        "methods": [_result(method, one, rows[method]) for method, one in trained.items()],
        "dataset": "digits",
        "attack": "pgd",
        "protocol": "paper",
        "eps": EPS,
        "steps": STEPS,
        "n": len(test),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(out / "metrics.json", metrics)
    _print_summary(metrics, out)
    return metrics


def _train(
    method: str, out: Path, device: str | torch.device, overrides: Mapping[str, Any]
) -> Trained:
    recipe = training.load_recipe(RECIPES[method], overrides)
    return training.run_recipe(recipe, out=out, resume=True, device=device)


def _attack(model: GapClassifier, test: ImageData) -> list[evaluation.AccuracyRow]:
    return evaluation.sweep(model, test.float(), test.labels, eps=RADII, steps=[STEPS])


@torch.no_grad()
def _pictured(networks: list[GapClassifier], test: ImageData, n: int) -> Tensor:
    """The first n images of the paper's selection among those that every network gets right."""
    order, _ = evaluation.paper_selection(len(test), len(test), num_classes=test.num_classes)
    x, y = test.float(order), test.labels[order.to(test.labels.device)]
    right = torch.stack([model(x).argmax(dim=1) == y for model in networks]).all(dim=0)
    return torch.cat([order[right.cpu()], order[~right.cpu()]])[:n]


def _result(method: str, one: Trained, rows: list[evaluation.AccuracyRow]) -> dict[str, Any]:
    by_eps = {row["eps"]: row["accuracy"] for row in rows}
    return {
        "method": method,
        "clean_accuracy": by_eps[0.0],
        "robust_accuracy": by_eps[EPS],
        "recipe": RECIPES[method],
        "training_seconds": round(sum(row["seconds"] for row in one.history), 1),
        "rows": rows,
    }


def _print_summary(metrics: Mapping[str, Any], out: Path) -> None:
    header = ["method", "clean accuracy", f"under attack, eps {format_eps(EPS)}", "training"]
    lines = [
        (
            one["method"],
            format_accuracy(one["clean_accuracy"]),
            format_accuracy(one["robust_accuracy"]),
            f"{one['training_seconds']:.0f} s",
        )
        for one in metrics["methods"]
    ]
    print(f"\n{text_table(header, lines)}\n")
    print(f"written: {out / 'metrics.json'}, {out / 'demo.png'} ({metrics['seconds']:.0f} s)")
