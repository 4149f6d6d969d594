"""The picture of the results: how many times faster, and how cost grows."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

Record = dict[str, Any]
METHODS = "one iteration of each method"  # they differ in what they do, not in how
COLOURS = ("#9a9a9a", "#c77d3a", "#1f5f99")  # the floor, the baseline, ours


def draw(results: list[Record], path: Path) -> bool:
    """Bars of the ratio of ours to its baseline, and a plot for each axis of growth.

    Returns:
        False if no file holds anything to draw; then nothing is written.
    """
    from matplotlib.figure import Figure

    bars = [bar for result in results for bar in _bars(result)]
    plots = [plot for result in results for plot in _plots(result)]
    if not bars and not plots:
        return False
    rows = max(1, -(-len(plots) // 2))
    height = max(0.24 * len(bars) + 1.2, 2.9 * rows)
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1])
    _draw_bars(left.subplots(), bars)
    if plots:
        axes = right.subplots(rows, 2, squeeze=False).flatten()
        for axis, plot in zip(axes, plots, strict=False):
            _draw_growth(axis, *plot)
        for axis in axes[len(plots) :]:
            axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _bars(result: Record) -> list[tuple[str, float, str]]:
    """(label, ratio, baseline) of ours in each group that has no plot of its own."""
    bars = []
    place = "GPU: " if result["name"].startswith("gpu") else ""
    for group in result["groups"]:
        if group["axis"] is not None or group["section"] == METHODS:
            continue
        if group["title"].endswith(("forward", "backward")):
            continue  # "both" stands for the phases of an op
        mine = _entry(group, group["ours"])
        if mine is not None and "ratio" in mine:
            bars.append((place + group["title"], mine["ratio"], group["baseline"]))
    return bars


def _entry(group: Record, name: str) -> Record | None:
    return next((e for e in group["entries"] if e["name"] == name), None)


def _draw_bars(axis: Any, bars: list[tuple[str, float, str]]) -> None:
    bars = bars[::-1]
    ratios = [ratio for _, ratio, _ in bars]
    colours = [COLOURS[2] if ratio >= 1 else COLOURS[1] for ratio in ratios]
    lengths = [ratio - 1 for ratio in ratios]  # from 1 on: to the left is slower
    axis.barh(range(len(bars)), lengths, left=1, color=colours, height=0.6)
    axis.set_yticks(range(len(bars)), [f"{label}\nagainst {base}" for label, _, base in bars])
    axis.tick_params(axis="y", labelsize=6)
    axis.axvline(1, color="black", linewidth=0.8)
    for row, ratio in enumerate(ratios):
        axis.text(max(ratio, 1), row, f" {float(f'{ratio:.2g}'):g}", va="center", fontsize=7)
    axis.set_xscale("log")
    low, high = min([0.8, *ratios]) / 1.2, max([2, *ratios]) * 1.5
    axis.set_xlim(low, high)
    marks = [mark for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= mark <= high]
    axis.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axis.minorticks_off()
    axis.set_ylim(-0.7, len(bars) - 0.3)
    axis.set_xlabel("times faster than the baseline (log scale)")
    axis.spines[["top", "right"]].set_visible(False)


Curve = list[tuple[float, float, float, float]]  # value, then median and quartiles in milliseconds


def _plots(result: Record) -> list[tuple[str, dict[str, Curve]]]:
    """(axis, entry -> curve) of each axis of growth in a file."""
    found: dict[str, dict[str, Curve]] = {}
    for group in result["groups"]:
        if group["axis"] is None:
            continue
        name, value = group["axis"]
        for entry in group["entries"]:
            times = [entry["microseconds"][k] / 1e3 for k in ("median", "lower", "upper")]
            curves = found.setdefault(name, {})
            curves.setdefault(entry["name"], []).append((value, times[0], times[1], times[2]))
    place = ", GPU" if result["name"].startswith("gpu") else ""
    return [(name + place, curves) for name, curves in found.items()]


def _draw_growth(axis: Any, name: str, curves: dict[str, Curve]) -> None:
    for colour, (entry, curve) in zip(COLOURS, curves.items(), strict=False):
        values, medians, lower, upper = zip(*sorted(curve), strict=True)
        label = fill(entry, 30)
        axis.plot(values, medians, "o-", color=colour, label=label, markersize=3, linewidth=1.3)
        axis.fill_between(values, lower, upper, color=colour, alpha=0.2, linewidth=0)
    axis.set_xlim(left=0)
    axis.set_ylim(0, 1.35 * max(point[3] for curve in curves.values() for point in curve))
    axis.set_xlabel(name)
    axis.set_ylabel("ms per Int iteration")
    axis.legend(fontsize=7, frameon=False, loc="upper left")
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
