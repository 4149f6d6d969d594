"""Drawing figure 2: two panels of curves, and the maps of five images below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...evaluation.pictures import STYLE, bare, colour_bar, overlay, show_image
from ...evaluation.tables import format_eps
from ..results import ResultRow, Results
from .subject import shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

CURVES = {  # colour and marker of each set of classes
    "1-class": ("#4477aa", "o"),
    "2-class": ("#cc3311", "s"),
    "all-class": ("#228833", "D"),
}


def draw(results: Results) -> Picture:
    """The curves of `lowest` over eps, and panel c."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    curves, maps = 2.15, 4.15
    height = curves + maps + 1.5
    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(7.4, height))
        top = picture.add_gridspec(
            1, 2, left=0.085, right=0.985, top=1 - 0.3 / height,
            bottom=1 - (0.3 + curves) / height, wspace=0.24,
        )  # fmt: skip
        for i, (panel, norm) in enumerate((("a", "$\\ell_1$"), ("b", "squared $\\ell_2$"))):
            _draw_curves(picture.add_subplot(top[0, i]), results.rows, panel, norm)
        grid = picture.add_gridspec(
            3, 7, width_ratios=[1, 1, 1, 1, 1, 0.03, 0.09], left=0.05, right=0.9,
            top=(maps + 0.35) / height, bottom=0.57 / height, wspace=0.06, hspace=0.17,
        )  # fmt: skip
        _draw_examples(picture, grid, results)
        above = (maps + 0.5) / height
        picture.text(0.012, above, "c", fontsize=9, fontweight="bold")
        colour_bar(picture, picture.add_subplot(grid[1:, 6]), "CAM / largest |value| in the row")
        picture.text(0.012, 0.012, _footnote(results.rows), fontsize=6.5, va="bottom")
    return picture


def _draw_curves(axes: Axes, rows: list[ResultRow], panel: str, norm: str) -> None:
    for classes, (colour, marker) in CURVES.items():
        own = [row for row in rows if (row["panel"], row["classes"]) == (panel, classes)]
        hidden = [row for row in own if row["success"]]
        axes.plot(
            [row["eps"] for row in hidden],
            [row["lowest"] for row in hidden],
            color=colour,
            marker=marker,
            markersize=4,
            label=classes,
        )
    axes.set_title(f"{panel}  ISA against the {norm} discrepancy", loc="left", fontweight="bold")
    axes.set_xlabel("perturbation size $\\epsilon$")
    axes.set_ylabel(f"normalised {norm} discrepancy")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # the legend lies above the curves
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper center", ncols=3, columnspacing=1.5)


def _draw_examples(picture: Picture, grid: Any, results: Results) -> None:
    """A column an example: the image, and its maps of t and t' with their tau below."""
    arrays, cells = results.arrays, [row for row in results.rows if row["panel"] == "c"]
    names = list(dict.fromkeys(_name(row) for row in cells))
    maps = {name: torch.from_numpy(arrays[f"maps-{name}"]) for name in names}
    scale = torch.stack(list(maps.values())).abs().amax(dim=(0, 2, 3)).tolist()
    for column, name in enumerate(names):
        own = [row for row in cells if _name(row) == name]
        image = torch.from_numpy(arrays[name])
        panels = [picture.add_subplot(grid[row, column]) for row in range(3)]
        bare(panels[0], _heading(name, own[0]))
        show_image(panels[0], image)
        panels[0].set_xlabel(shares(own), fontsize=7, labelpad=2)
        for panel, row, values, most in zip(panels[1:], own, maps[name], scale, strict=True):
            bare(panel)
            panel.imshow(overlay(image, values / (most or 1.0)), interpolation="nearest")
            if name != "original":
                panel.set_xlabel(f"$\\tau$ = {row['kendall_tau']:.3f}", labelpad=2)
        if column == 0:
            for panel, label in zip(panels, _labels(own), strict=True):
                panel.set_ylabel(label)


def _name(row: Mapping[str, Any]) -> str:
    return str(row["classes"] or row["attack"])


def _heading(name: str, row: Mapping[str, Any]) -> str:
    if name == "original":
        return "original $x$"
    kind = "10-step PGD $x'$" if name == "pgd" else f"$\\ell_1$ {name} ISA $x'$"
    eps = format_eps(row["eps"]) if name == "pgd" else f"{row['eps']:.3g}"
    return f"{kind}\n$\\epsilon$ = {eps}"


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    symbols = ("t", "t'")
    maps = [f"$L(\\cdot, {s})$, {row[row['class']]}" for s, row in zip(symbols, rows, strict=True)]
    return ["image", *maps]


def _footnote(rows: list[ResultRow]) -> str:
    one = rows[0]
    most = max(row["penalty"] for row in rows if row["panel"] != "c")
    return (
        f"{one['dataset']}, test image {one['image']}, {one['model']} {one['method']} network. "
        "Curves: the discrepancy in units of the clean map's range, from the smallest\n"
        f"eps that fools the network to {most:g} times it, and never above that of a smaller eps."
        " $\\tau$: Kendall's between $L(x, i)$ and $L(x', i)$."
    )
