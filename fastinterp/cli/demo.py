"""`fastinterp demo`: trains Normal and Int on built-in digits, attacks both, and compares them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import data, evaluation, training
from .._utils.errors import InputError
from .._utils.files import write_json
from ..data import ImageData
from ..evaluation.comparison import Contender, comparison_figure
from ..evaluation.measuring import predict
from ..evaluation.pictures import save_picture
from ..evaluation.tables import format_accuracy, format_eps, text_table
from ..training.recipe import Trained

RECIPES = {"normal": "digits-small-normal", "int": "digits-small-int"}
RADII = (0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2)
EPS = 0.1  # for `robust_accuracy` and the pictures
STEPS = 40


def run_demo(
    out: str | Path,
    device: str | torch.device = "cpu",
    *,
    overrides: Mapping[str, Any] | None = None,
    n: int | None = None,
    pictured: int = 3,
) -> dict[str, Any]:
    """Train Normal and Int on digits, attack both, and write metrics.json and demo.png.

    An interrupted demo in the same folder is continued.

    Args:
        out: folder for the two runs and the results.
        device: where to train and attack.
        overrides: changes to both recipes.
        n: number of test images to attack, from the first on; None: all.
        pictured: number of images in the picture.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: `out` is a file, or holds runs with other settings.
    """
    out = Path(out)
    if out.is_file():
        raise InputError(f"--out names a file, {out}; give the name of a folder.")
    start = time.monotonic()
    test = data.load("digits", device=device)
    test = test if n is None else test.subset(slice(0, n))
    print(f"1/3  Training Normal and Int on the built-in digits, on {device}; results in {out}.")
    trained = {}
    for method, name in RECIPES.items():
        recipe = training.load_recipe(name, overrides or {})
        trained[method] = training.run_recipe(recipe, out=out / method, resume=True, device=device)
    print(
        f"2/3  Attacking both on {len(test)} test images at {len(RADII)} radii: PGD with {STEPS} "
        'steps, then the ensemble "best".'
    )
    rows, strong = (
        {
            method: evaluation.sweep(
                one.model, test.float(), test.labels, eps=RADII, steps=steps, protocol=protocol
            )
            for method, one in trained.items()
        }
        for protocol, steps in (("paper", [STEPS]), ("best", None))
    )
    print("3/3  Drawing class activation maps before and after the attack.")
    chosen = _pictured([one.model for one in trained.values()], test, pictured)
    contenders = [
        Contender(
            method.capitalize(),
            one.history,
            rows[method],
            strong[method],
            evaluation.explain(one.model, test.float(chosen), test.labels[chosen], eps=EPS),
        )
        for method, one in trained.items()
    ]
    save_picture(comparison_figure(contenders, test.classes, EPS), out / "demo.png")
    metrics = {
        "methods": [
            _result(method, one, rows[method], strong[method]) for method, one in trained.items()
        ],
        "dataset": "digits",
        "attack": "pgd",
        "eps": EPS,
        "steps": STEPS,
        "n": len(test),
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(out / "metrics.json", metrics)
    _print_summary(metrics, out)
    return metrics


@torch.no_grad()
def _pictured(networks: Sequence[nn.Module], test: ImageData, n: int) -> Tensor:
    """Positions of n images, by a rule: of those that every network classifies correctly, the ones
    around the median margin of the last network; other images only where there are too few."""
    x, y = test.float(), test.labels
    right = torch.stack([predict(model, x) == y for model in networks]).all(dim=0)
    logits = networks[-1](x)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    margin = logits.gather(1, y[:, None]).squeeze(1) - others
    order = margin.argsort().cpu()
    right = right.cpu()[order]
    chosen = order[right]
    first = max((len(chosen) - n) // 2, 0)
    return torch.cat([chosen[first : first + n], order[~right]])[:n]


def _result(
    method: str,
    one: Trained,
    rows: Sequence[Mapping[str, Any]],
    strong: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    by_eps = {row["eps"]: row["accuracy"] for row in rows}
    strongest = {row["eps"]: row["accuracy"] for row in strong}
    return {
        "method": method,
        "clean_accuracy": by_eps[0.0],
        "robust_accuracy": strongest[EPS],
        "accuracy_under_pgd": by_eps[EPS],
        "recipe": RECIPES[method],
        "training_seconds": round(sum(row["seconds"] for row in one.history), 1),
        "rows": rows,
        "strong_rows": strong,
    }


def _print_summary(metrics: Mapping[str, Any], out: Path) -> None:
    at = f"at eps {format_eps(EPS)}"
    header = ["method", "clean accuracy", f"PGD {at}", f"strongest attack {at}", "training time"]
    lines = [
        (
            one["method"],
            format_accuracy(one["clean_accuracy"]),
            format_accuracy(one["accuracy_under_pgd"]),
            format_accuracy(one["robust_accuracy"]),
            f"{one['training_seconds']:.0f} s",
        )
        for one in metrics["methods"]
    ]
    print(f"\n{text_table(header, lines)}\n")
    print(f"written: {out / 'metrics.json'}, {out / 'demo.png'} ({metrics['seconds']:.0f} s)")
