"""Figure 3: what each training method costs, and how robust its network is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ... import training
from ...evaluation.pictures import STYLE
from ..networks import Network
from ..paper import load_table
from ..results import ResultRow, Results
from .figure import PaperFigure, Setting
from .labels import LABELS, device_name, sources
from .under_pgd import accuracies, with_later

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

METHODS = ("ig-norm-sum", "ig-norm", "int-adv", "int", "int-1-class", "trades", "adv", "normal")
EPS = (0.3, 0.4)
TIME = ("seconds_per_iteration", "iterations", "seconds_per_epoch", "timed", "device")


def measure(setting: Setting) -> Results:
    """A row for each method and eps; the costliest method first."""
    networks = FIGURE.chosen(setting.only)
    rows: list[ResultRow] = []
    for network in networks:
        rows += accuracies(setting, network, setting.find(network), EPS)
        setting.save(Results(with_later(setting, rows, "method")))
    times = _known_times(setting, networks) or _time_training(setting, networks)
    rows = [{**row, "paper": _printed(row), **times[row["method"]]} for row in rows]
    rows.sort(key=lambda row: -row["seconds_per_epoch"])  # stable: a method's rows stay together
    return Results(rows)


def _printed(row: Mapping[str, Any]) -> float | None:
    """The accuracy of the same network in Table 3."""
    for block in load_table("table3").blocks:
        if (block.dataset, block.model) == (row["dataset"], row["model"]):
            values = block.rows.get(row["method"], ())
            for column, value in zip(block.columns, values, strict=True):
                if column["eps"] == row["eps"]:
                    return value
    return None


Times = Mapping[str, Mapping[str, Any]]


def _known_times(setting: Setting, networks: list[Network]) -> Times | None:
    """The times of an earlier run, if it measured all of these methods on this device."""
    device = device_name(setting.device)
    times = {
        row["method"]: {key: row[key] for key in TIME}
        for row in setting.known.rows
        if row.get("device") is not None and (setting.networks is None or row["device"] == device)
    }
    return times if all(network.method in times for network in networks) else None


def _time_training(setting: Setting, networks: list[Network]) -> Times:
    recipes = [training.load_recipe(network.recipe) for network in networks]
    found = training.time_recipes(
        recipes, setting.data_dir, device=setting.device, progress=setting.progress
    )
    device = device_name(setting.device)
    return {
        network.method: dict(
            zip(TIME, (*time[:2], time.seconds * time.iterations, time.timed, device), strict=True)
        )
        for network, time in zip(networks, found, strict=True)
    }


def draw(results: Results) -> Picture:
    """Bars of the time per epoch, points of the accuracies."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    methods = list(dict.fromkeys(row["method"] for row in results.rows))
    with mpl.rc_context(STYLE | {"font.size": 9.0}):
        picture = Picture(figsize=(6.8, 4.0))
        time = picture.add_axes((0.1, 0.27, 0.805, 0.64))
        accuracy = time.twinx()
        handles = [_draw_times(time, results.rows, methods)]
        handles += list(_draw_accuracies(accuracy, results.rows, methods))
        time.set_xticks(range(len(methods)), [LABELS[method] for method in methods])
        for label in time.get_xticklabels():
            label.set(rotation=28, ha="right", rotation_mode="anchor")
        picture.legend(
            handles=handles, loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.0)
        )
        picture.text(0.012, 0.012, _footnote(results.rows), fontsize=6.5, va="bottom")
    return picture


TIME_COLOUR = "#b9c6d6"
COLOURS = {0.3: "#c0392b", 0.4: "#1f4e79"}
PLACES = {0.3: 0.22, 0.4: 0.38}  # beside the bar, and beside each other
MARKERS = {0.3: "o", 0.4: "s"}


def _draw_times(axes: Axes, rows: list[ResultRow], methods: list[str]) -> Any:
    seconds = {row["method"]: row["seconds_per_epoch"] for row in rows}
    unit, name = (60, "minutes") if max(seconds.values()) >= 300 else (1, "seconds")
    heights = [seconds[method] / unit for method in methods]
    places = [x - 0.14 for x in range(len(methods))]
    bars = axes.bar(places, heights, 0.46, color=TIME_COLOUR)
    axes.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=7, color="#4a5a6c")
    axes.set_ylabel(f"computation time per epoch ({name})")
    axes.set_ylim(0, 1.12 * max(heights))
    bars.set_label("time per epoch")
    return bars


def _draw_accuracies(axes: Axes, rows: list[ResultRow], methods: list[str]) -> Iterator[Any]:
    for eps in EPS:
        found = {row["method"]: row["accuracy"] for row in rows if row["eps"] == eps}
        values = [float("nan") if found[m] is None else found[m] for m in methods]
        (line,) = axes.plot(
            [x + PLACES[eps] for x in range(len(methods))],
            values,
            MARKERS[eps],
            color=COLOURS[eps],
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            label=f"accuracy, $\\epsilon$ = {eps:g}",
            clip_on=False,
            zorder=4,  # above the frame, which a point at 0 lies on
        )
        yield line
    axes.set_ylim(0, 1)
    axes.set_ylabel("adversarial test accuracy")


def _footnote(rows: list[ResultRow]) -> str:
    one = rows[0]
    return (
        f"Time: median of {one['timed']} training iterations at the whole eps, methods taking "
        f"turns, on {one['device']}, times the {one['iterations']:,} iterations\n"
        f"of an epoch. Accuracy: {one['steps']} steps of PGD on {one['n']} test images. "
        f"MNIST, Small; {sources(rows)}."
    )


FIGURE = PaperFigure(
    "fig3",
    "training time per epoch and adversarial accuracy of the eight methods",
    "8 mnist small networks, and the training images to time training",
    4,
    tuple(Network("mnist", "small", method) for method in METHODS),
    measure,
    draw,
    ("method", "eps", "steps", "paper", "accuracy", "seconds_per_iteration", "seconds_per_epoch"),
)
