"""The picture that compares networks: their training, their accuracy under attack, their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .accuracy import AccuracyRow
from .pictures import PANEL, STYLE, Explanations, centre_of, draw_explanation, finish, panel_grid
from .tables import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

PALETTE = ("#4477aa", "#cc3311", "#228833", "#aa3377", "#ccbb44", "#66ccee")
MARKERS = "osD^vP"


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: as printed.
        history: a row an epoch, with epoch, clean_accuracy and robust_accuracy (None: without).
        rows: accuracy over eps under the paper's attack, from `sweep`, for one number of steps.
        strong: the same under the protocol "best".
        found: maps of some images, the same ones for each network.
    """

    name: str
    history: Sequence[Mapping[str, Any]]
    rows: Sequence[AccuracyRow]
    strong: Sequence[AccuracyRow]
    found: Explanations


def comparison_figure(
    contenders: Sequence[Contender], classes: Sequence[str], eps: float
) -> Figure:
    """Curves of training and of accuracy over eps; below, each image as each network sees it.

    Args:
        contenders: networks, at most six.
        classes: names of the classes.
        eps: radius of the balls in training, marked in the curve over eps.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    lines = len(contenders[0].found.images) * len(contenders)
    curves, maps = 2.35, PANEL * lines
    height = 0.3 + curves + 0.95 + maps + 0.3
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height))
        top = figure.add_gridspec(
            1, 2, left=0.065, right=0.985, top=1 - 0.3 / height,
            bottom=1 - (0.3 + curves) / height, wspace=0.16,
        )  # fmt: skip
        training, attacked = (figure.add_subplot(top[0, column]) for column in (0, 1))
        draw_training(training, contenders)
        draw_robustness(attacked, contenders, eps)
        grid = panel_grid(figure, lines, left=0.03, top=(0.3 + maps) / height)
        draw_maps(figure, grid, contenders, classes)
        finish(figure, grid, left=0.03)
    return figure


def draw_maps(
    figure: Figure, grid: GridSpec, contenders: Sequence[Contender], names: Sequence[str]
) -> None:
    """A line of the grid for each image and network: those of one image lie together."""
    for line in range(grid.nrows):
        image, index = divmod(line, len(contenders))
        first = draw_explanation(figure, grid, line, contenders[index].found, image, names)
        first.set_ylabel(contenders[index].name, fontweight="bold", fontsize=9)
        first.yaxis.label.set_color(PALETTE[index])
    radius = format_eps(contenders[0].found.eps)
    above = grid[0, 0].get_position(figure).y1 + 0.3 / figure.get_figheight()
    figure.text(0.03, above, "c  Maps", fontsize=9, fontweight="bold")
    for heading, column in (("clean", 1), (f"attacked towards the target, eps = {radius}", 5)):
        figure.text(centre_of(figure, grid, column), above, heading, ha="center", fontsize=9)


def draw_training(axes: Axes, contenders: Sequence[Contender]) -> None:
    """Accuracy on the training images, epoch by epoch; dashed: on the x' of training."""
    for index, one in enumerate(contenders):
        epochs = [row["epoch"] for row in one.history]
        clean = [row["clean_accuracy"] for row in one.history]
        robust = [row["robust_accuracy"] for row in one.history]
        axes.plot(epochs, clean, color=PALETTE[index], label=f"{one.name}, clean")
        if robust[-1] is not None:
            axes.plot(
                epochs,
                robust,
                "--",
                color=PALETTE[index],
                label=f"{one.name}, under its own inner attack",
            )
    _axes(axes, "a  Training", "epoch", "training accuracy")
    axes.set_xlim(left=1)


def draw_robustness(axes: Axes, contenders: Sequence[Contender], eps: float) -> None:
    """Accuracy on test images over the size of the perturbation."""
    for index, one in enumerate(contenders):
        for rows, style, attack in ((one.rows, "--", "PGD"), (one.strong, "-", "strongest attack")):
            in_order = sorted(rows, key=lambda row: row["eps"])
            axes.plot(
                [row["eps"] for row in in_order],
                [row["accuracy"] for row in in_order],
                style,
                color=PALETTE[index],
                marker=MARKERS[index],
                markersize=4,
                label=f"{one.name}, {attack}",
            )
    first = contenders[0].rows[0]
    axes.axvline(eps, color="0.6", linestyle=":", linewidth=1, zorder=0)
    axes.annotate(
        "eps of training", (eps, 0.62), xytext=(3, 0), textcoords="offset points",
        color="0.4", fontsize=7, va="center",
    )  # fmt: skip
    title = f"b  Attacks on {first['n']} test images"
    _axes(axes, title, "eps (largest change of a pixel)", "test accuracy")
    axes.set_xticks([row["eps"] for row in contenders[0].rows])
    axes.set_xlim(left=0)


def _axes(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)
