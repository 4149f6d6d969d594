"""Figure 1: how an attack changes the maps of the true and the target class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...evaluation.pictures import STYLE, bare, colour_bar, overlay, show_image
from ...evaluation.tables import format_eps
from ...interpreters import CAM, GradCAMPlusPlus, IntegratedGradients, Interpreter
from ...ops import kendall_tau
from ..results import ResultRow, Results
from .figure import PaperFigure, Setting
from .subject import NEEDS, ROLES, SCENES, STEPS, Subject, find_subject, holds, shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

LABELS = {"cam": "CAM", "gradcam++": "GradCAM++", "ig": "IG"}
IG_STEPS = 100
CELLS = 28  # to a side of the picture of a map of pixels
IG_PIXELS = 2_000_000  # values in one pass of IG, to limit its memory on large images
PAPER = {  # of another image of restricted ImageNet, which the paper does not name
    "cam": (0.4782, 0.5039),
    "gradcam++": (0.5018, 0.5472),
    "ig": (0.4040, 0.3911),
}


def interpreters(subject: Subject) -> dict[str, Interpreter]:
    """The three of the figure. IG is eq. (2) on the network itself, without softplus."""
    chunk = max(1, min(512, IG_PIXELS // subject.x.numel()))
    return {
        "cam": CAM(subject.model),
        "gradcam++": GradCAMPlusPlus(subject.model),
        "ig": IntegratedGradients(subject.model, IG_STEPS, chunk_size=chunk),
    }


def measure(setting: Setting) -> Results:
    """A row for each interpreter and class; the images and their maps as arrays.

    Arrays: "x", "x_adv" [C_in, H, W] and, by the interpreter's name, maps [2, 2, ...]: of x and x',
    of t and t'.
    """
    network = FIGURE.chosen(setting.only)[0]
    if holds(setting, network, len(LABELS) * len(ROLES)):
        return setting.known
    subject = find_subject(setting, network)
    both = torch.cat([subject.x, subject.x_adv])
    shared = {
        **subject.about,
        "eps": subject.scene.eps,
        "steps": STEPS,
        "step_size": subject.scene.step_size,
    }
    probabilities = subject.probabilities(both)
    arrays = {"x": both[0].cpu().numpy(), "x_adv": both[1].cpu().numpy()}
    rows: list[ResultRow] = []
    for name, interpreter in interpreters(subject).items():
        about = {**shared, "interpreter": name}
        if any(about.items() <= row.items() for row in setting.known.rows):
            maps = torch.from_numpy(setting.known.arrays[name])
        else:
            with torch.no_grad():
                maps = torch.cat([interpreter(x[None], subject.classes) for x in both]).cpu()
        rows += _rows(about, maps, probabilities)
        arrays[name] = maps.numpy()
        setting.save(Results(rows, arrays))
    return Results(rows, arrays)


def _rows(about: Mapping[str, Any], maps: Tensor, probabilities: Tensor) -> list[ResultRow]:
    """Maps [2, 2, ...] and probabilities [2, 2], of x and x', of t and t' -> a row a class."""
    tau = kendall_tau(*maps.flatten(2)).tolist()
    paper = PAPER if about["dataset"] == "restricted_imagenet" else {}
    return [
        {
            **about,
            "class": role,
            "probability": float(probabilities[0, i]),
            "probability_adv": float(probabilities[1, i]),
            "paper": paper.get(about["interpreter"], (None, None))[i],
            "kendall_tau": tau[i],
        }
        for i, role in enumerate(ROLES)
    ]


def draw(results: Results) -> Picture:
    """The image and its maps in the first row, the attacked image and its maps in the second."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    names = list(dict.fromkeys(row["interpreter"] for row in results.rows))
    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(9.0, 3.42))
        grid = picture.add_gridspec(
            2, 3 * len(names) + 3, width_ratios=[1, *[0.1, 1, 1] * len(names), 0.02, 0.08],
            left=0.03, right=0.925, top=0.835, bottom=0.162, wspace=0.05, hspace=0.16,
        )  # fmt: skip
        axes = [picture.add_subplot(grid[row, 0]) for row in (0, 1)]
        _draw_images(axes, results)
        for i, name in enumerate(names):
            pairs = [[picture.add_subplot(grid[row, 3 * i + c]) for row in (0, 1)] for c in (2, 3)]
            _draw_maps(pairs, results, name)
            centre = (pairs[0][0].get_position().x0 + pairs[1][0].get_position().x1) / 2
            picture.text(centre, 0.935, LABELS[name], ha="center", va="center", fontsize=10)
        label = "map / largest |value| in the column"
        colour_bar(picture, picture.add_subplot(grid[:, -1]), label)
        picture.text(0.008, 0.012, _footnote(results), fontsize=6.5, va="bottom")
    return picture


def _draw_images(axes: list[Axes], results: Results) -> None:
    """x and x', each with the probabilities of t and t'."""
    sides = (("x", "probability", "original $x$"), ("x_adv", "probability_adv", "adversarial $x'$"))
    for panel, (array, key, side) in zip(axes, sides, strict=True):
        bare(panel)
        panel.set_title(shares(results.rows[:2], key), fontsize=7)
        show_image(panel, torch.from_numpy(results.arrays[array]))
        panel.set_ylabel(side, fontsize=9)


def _draw_maps(pairs: list[list[Axes]], results: Results, name: str) -> None:
    """Two columns, for t and t'; in each the map at x, the map at x', and their tau."""
    maps = shown(torch.from_numpy(results.arrays[name]))
    images = [torch.from_numpy(results.arrays[key]) for key in ("x", "x_adv")]
    rows = [row for row in results.rows if row["interpreter"] == name]
    for i, (pair, row) in enumerate(zip(pairs, rows, strict=True)):
        scale = float(maps[:, i].abs().max()) or 1.0
        for panel, image, values in zip(pair, images, maps[:, i] / scale, strict=True):
            bare(panel)
            panel.imshow(overlay(image, values), interpolation="nearest")
        symbol = "t" if row["class"] == "true" else "t'"
        pair[0].set_title(f"$L(\\cdot, {symbol})$, {row[row['class']]}")
        pair[1].set_xlabel(f"$\\tau$ = {row['kendall_tau']:.3f}", fontsize=8, labelpad=3)


def shown(maps: Tensor) -> Tensor:
    """Maps [2, 2, C_in, H, W] of pixels, summed to [2, 2, h, w]; other maps as they are.

    The sum is over the channels and over square patches, about `CELLS` to a side, because single
    pixels of a large image are too small to see. Summed maps of IG are still complete.
    """
    if maps.dim() != 5:
        return maps
    patch = _patch(maps.shape[-1])
    return patch**2 * F.avg_pool2d(maps.sum(dim=2), patch)


def _patch(width: int) -> int:
    return max(1, width // CELLS)


def _footnote(results: Results) -> str:
    row = results.rows[0]
    patch = _patch(results.arrays["x"].shape[-1])
    summed = f"channels and {patch}x{patch} pixels" if patch > 1 else "channels"
    return (
        f"{row['dataset']}, test image {row['image']}, {row['model']} {row['method']} network. "
        f"$x'$: {row['steps']} steps of targeted PGD, eps = {format_eps(row['eps'])}, "
        f"step {row['step_size']:.3g}. Above the images: probabilities.\n"
        f"$\\tau$: Kendall's between $L(x, i)$ and $L(x', i)$. "
        f"IG: of every pixel and channel, shown as sums over {summed}."
    )


FIGURE = PaperFigure(
    "fig1",
    "an image before and after an attack, each with CAM, GradCAM++ and IG of two classes",
    NEEDS,
    3,
    tuple(scene.network for scene in SCENES),
    measure,
    draw,
    ("interpreter", "class", "probability", "probability_adv", "paper", "kendall_tau"),
    n=1,
    alternatives=True,
)
