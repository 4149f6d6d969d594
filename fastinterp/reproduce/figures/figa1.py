"""Figure A1: accuracy and robustness over the weight of the regulariser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._utils.errors import InputError
from ...evaluation.pictures import STYLE
from ..networks import SCALES, Network, Scale, find_network
from ..results import ResultRow, Results
from .figure import PaperFigure, Setting
from .labels import sources
from .under_pgd import accuracies, with_later

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

EPS = (0.0, 0.1, 0.3)
# gamma -> the network; 0 is normal training, 0.01 the paper's own choice.
NETWORKS = {
    0.0: Network("mnist", "small", "normal"),
    0.01: Network("mnist", "small", "int"),
    **{g: Network("mnist", "small", "int", g) for g in (0.001, 0.003, 0.03, 0.1)},
}


def measure(setting: Setting) -> Results:
    """A row for each gamma and eps, by rising gamma.

    All networks are of one kind of recipe, the paper's or the short one, whichever the folder
    holds more of. Otherwise a line would show differences of recipe, not of gamma.
    """
    wanted = FIGURE.chosen(setting.only)
    paths = _paths(setting, wanted)
    rows: list[ResultRow] = []
    for gamma in sorted(gamma for gamma, network in NETWORKS.items() if network in wanted):
        found = accuracies(setting, NETWORKS[gamma], paths.get(gamma), EPS, gamma=gamma)
        rows += [row for row in found if row["accuracy"] is not None]
        setting.save(Results(with_later(setting, rows, "gamma")))
    if not rows:
        raise InputError(
            "figA1 found no network, such as mnist-small-int-gamma-0.1/model.safetensors; name the "
            "folder of networks with --networks, or train them with --train."
        )
    return Results(rows)


def _paths(setting: Setting, wanted: list[Network]) -> dict[float, Path]:
    """gamma -> file, all of the kind of recipe that the folder holds more of."""
    if setting.networks is None:
        return {}
    kinds = [_of_kind(setting.networks, wanted, scale) for scale in SCALES]
    return max(kinds, key=len)


def _of_kind(folder: Path, wanted: list[Network], scale: Scale) -> dict[float, Path]:
    found = {
        gamma: find_network(folder, network, [scale])
        for gamma, network in NETWORKS.items()
        if network in wanted
    }
    return {gamma: path for gamma, path in found.items() if path is not None}


COLOURS = {0.0: "#4d4d4d", 0.1: "#1f4e79", 0.3: "#c0392b"}
MARKERS = {0.0: "^", 0.1: "s", 0.3: "o"}


def draw(results: Results) -> Picture:
    """A line for each eps over gamma, on a log axis that shows 0 at its left end."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    with mpl.rc_context(STYLE | {"font.size": 9.0}):
        picture = Picture(figsize=(5.2, 3.8))
        axes = picture.add_axes((0.11, 0.235, 0.86, 0.66))
        for eps in dict.fromkeys(row["eps"] for row in results.rows):
            _draw_line(axes, [row for row in results.rows if row["eps"] == eps], eps)
        _gamma_axis(axes, sorted({row["gamma"] for row in results.rows}))
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("test accuracy")
        axes.grid(axis="y", linewidth=0.4, color="#dddddd")
        axes.set_axisbelow(True)
        handles, _ = axes.get_legend_handles_labels()
        picture.legend(
            handles=handles, loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.53, 1.0)
        )
        picture.text(0.012, 0.012, _footnote(results.rows), fontsize=6.5, va="bottom")
    return picture


def _place(gamma: float, smallest: float) -> float:
    """Where gamma is drawn on the log axis: 0 half a decade left of the smallest other."""
    return gamma if gamma > 0 else smallest * 10**-0.5


def _smallest(gammas: list[float]) -> float:
    return min((gamma for gamma in gammas if gamma > 0), default=1.0)


def _draw_line(axes: Axes, rows: list[ResultRow], eps: float) -> None:
    smallest = _smallest([row["gamma"] for row in rows])
    values = [(_place(row["gamma"], smallest), row["accuracy"]) for row in rows]
    style: dict[str, Any] = {"color": COLOURS[eps], "linewidth": 1.3}
    label = "clean" if eps == 0 else f"PGD, $\\epsilon$ = {eps:g}"
    whole = [value for value, row in zip(values, rows, strict=True) if row["gamma"] > 0]
    if len(whole) < len(values):  # 0 is not on the scale: the line to it is dashed
        axes.plot(*zip(*values[:2], strict=True), linestyle=(0, (2, 2)), **style)
    if whole:
        axes.plot(*zip(*whole, strict=True), **style)
    axes.plot(
        *zip(*values, strict=True),
        MARKERS[eps],
        color=COLOURS[eps],
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.7,
        label=label,
        clip_on=False,
        zorder=4,  # above the frame, which a point at 0 lies on
    )


def _gamma_axis(axes: Axes, gammas: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    smallest = _smallest(gammas)
    axes.set_xscale("log")
    names = ["0\n(Normal)" if gamma == 0 else f"{gamma:g}" for gamma in gammas]
    axes.set_xticks([_place(gamma, smallest) for gamma in gammas], names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weight of the regulariser, $\\gamma$")


def _footnote(rows: list[ResultRow]) -> str:
    one = rows[0]
    return (
        f"MNIST, Small, trained with Int. {one['steps']} steps of PGD on {one['n']} test images.\n"
        f"{sources(rows).capitalize()}."
    )


FIGURE = PaperFigure(
    "figA1",
    "clean and adversarial accuracy of Int over gamma",
    "6 mnist small networks, Int with gammas from 0 (Normal) to 0.1; --train trains them, "
    "with quick in about 15 min",
    2,
    tuple(NETWORKS.values()),
    measure,
    draw,
    ("gamma", "network", "eps", "steps", "accuracy"),
)
