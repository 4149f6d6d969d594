"""Pictures of explanations, drawn without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._utils.errors import InputError
from .._utils.files import atomic_path
from ..interpreters import upsample
from .explanations import Explanations
from .tables import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
COLOURS = "RdBu_r"  # diverging: evidence for the class is red, evidence against it is blue
WRONG = "#b2182b"
FOOTNOTE = (
    "Maps of the true and the target class, enlarged bilinearly. "
    "In brackets: the probability given to the class. Red: misclassified."
)
STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 7.5,
    "axes.titlepad": 3.0,
    "axes.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def picture_path(path: str | Path) -> Path:
    """The path, if a picture can be written there.

    Raises:
        InputError: the suffix is not one of .png, .pdf and .svg.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"a picture's name must end in {', '.join(SUFFIXES)}, got {path}.")
    return path


def save_picture(figure: Figure, path: str | Path) -> None:
    """Write a figure, atomically; the suffix decides the format."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), atomic_path(picture_path(path)) as temporary:
        figure.savefig(temporary)


def explanation_figure(found: Explanations, classes: Sequence[str] | None = None) -> Figure:
    """A row an image: the image and its two maps, then the attacked image and its two maps.

    Maps are enlarged bilinearly and laid over a pale copy of their image. A row's four maps are
    divided by the largest absolute value among them, so they can be compared with each other.

    Args:
        found: see `explain`.
        classes: names to print instead of numbers.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    n = len(found.images)
    names = list(classes or map(str, range(found.probabilities.shape[1])))
    height = 1.42 * n + 0.8
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height))
        grid = figure.add_gridspec(
            n,
            9,
            width_ratios=[1, 1, 1, 0.12, 1, 1, 1, 0.04, 0.06],
            left=0.012,
            right=0.915,
            top=1 - 0.52 / height,
            bottom=0.3 / height,
            wspace=0.06,
            hspace=0.2,
        )
        for row in range(n):
            clean = [figure.add_subplot(grid[row, column]) for column in (0, 1, 2)]
            attacked = [figure.add_subplot(grid[row, column]) for column in (4, 5, 6)]
            draw_explanation(clean, attacked, found, row, names)
        norm = "" if found.norm == "linf" else f" in {found.norm}"
        headings = (
            "clean",
            f"attacked towards the target, eps = {format_eps(found.eps)}{norm}",
        )
        for heading, first in zip(headings, (0, 4), strict=True):
            boxes = [grid[0, first + i].get_position(figure) for i in (0, 2)]
            centre = (boxes[0].x0 + boxes[1].x1) / 2
            figure.text(centre, 1 - 0.2 / height, heading, ha="center", va="center", fontsize=10)
        figure.text(0.012, 0.12 / height, FOOTNOTE, va="center", fontsize=7.5)
        colour_bar(figure, figure.add_subplot(grid[:, 8]))
    return figure


def draw_explanation(
    clean: Sequence[Axes], attacked: Sequence[Axes], found: Explanations, row: int, names: list[str]
) -> None:
    """Fill three panels for x and three for x'. Numbers in brackets are probabilities."""
    true, target = int(found.labels[row]), int(found.targets[row])
    scale = float(max(found.maps[row].abs().max(), found.maps_adv[row].abs().max())) or 1.0
    sides = (
        (clean, found.images[row], found.maps[row], found.probabilities[row]),
        (attacked, found.attacked[row], found.maps_adv[row], found.probabilities_adv[row]),
    )
    for (picture, *panels), image, maps, p in sides:
        predicted = int(p.argmax())
        fitted(picture, f"predicted {_short(names[predicted])} ({p[predicted]:.2f})")
        picture.title.set_color("black" if predicted == true else WRONG)
        show_image(picture, image)
        roles = ("true", "target")
        for panel, role, label, one in zip(panels, roles, (true, target), maps, strict=True):
            fitted(panel, f"{role} {_short(names[label])} ({p[label]:.2f})")
            panel.imshow(overlay(image, one / scale), interpolation="nearest")


def overlay(image: Tensor, values: Tensor) -> NDArray[np.float32]:
    """A map over a pale copy of its image.

    The stronger the map, the more it covers, so that strong colours are those of the colour bar.

    Args:
        image: [C_in, H, W] in [0, 1]; a single channel is shown dark on light.
        values: [h, w] in [-1, 1], enlarged to H x W.

    Returns:
        RGB [H', W', 3] in [0, 1], at least 224 pixels high, so that the enlarged map is smooth.
    """
    import matplotlib as mpl

    grey = image.mean(dim=0)
    if image.shape[0] == 1 and grey.mean() < 0.5:
        grey = 1 - grey
    zoom = -(-224 // grey.shape[0])
    shape = (grey.shape[0] * zoom, grey.shape[1] * zoom)
    pale = (0.35 + 0.65 * grey).repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    smooth = upsample(values[None, None].float(), shape)[0, 0].numpy().clip(-1, 1)
    colour = mpl.colormaps[COLOURS](0.5 + smooth / 2)[..., :3]
    size = np.abs(smooth)[..., None]
    cover = 0.92 * size * (2 - size)
    mixed: NDArray[np.float32] = cover * colour + (1 - cover) * pale.numpy()[..., None]
    return mixed.clip(0, 1)


ROW_SCALE = "map / largest |value| in the row"


def colour_bar(figure: Figure, axes: Axes, label: str = ROW_SCALE) -> None:
    """The scale of the maps; `label` says how they were normalised."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    mappable = mpl.cm.ScalarMappable(Normalize(-1, 1), COLOURS)
    bar = figure.colorbar(mappable, cax=axes, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label(label)
    bar.ax.set_title("for", fontsize=7.5)
    bar.ax.set_xlabel("against", fontsize=7.5)
    bar.outline.set_linewidth(0.6)


def bare(axes: Axes, title: str = "") -> None:
    """A panel without ticks."""
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def fitted(axes: Axes, title: str) -> None:
    """A panel without ticks, its title set smaller where it would reach into the next panel."""
    from matplotlib.textpath import TextPath

    bare(axes, title)
    # In points, from the outlines of the letters: a width in pixels depends on the resolution.
    points = 72 * axes.figure.bbox.width / axes.figure.dpi
    room = 0.94 * points * axes.get_position(original=True).width  # rasters round letters up
    width = TextPath((0, 0), title, prop=axes.title.get_fontproperties()).get_extents().width
    if width > room:
        axes.title.set_fontsize(float(axes.title.get_fontsize()) * room / width)


def show_image(axes: Axes, image: Tensor) -> None:
    """An image [C_in, H, W] in [0, 1], C_in 1 or 3, on the CPU."""
    picture: NDArray[Any] = (image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)).numpy()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
