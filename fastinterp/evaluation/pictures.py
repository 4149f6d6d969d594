"""Pictures of explanations, drawn without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._utils.errors import InputError
from .._utils.files import atomic_path
from ..interpreters.upsample import upsample
from ..ops.pgd_step import Norm
from .tables import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

SUFFIXES = (".png", ".pdf", ".svg")
COLOURS = "RdBu_r"  # diverging: evidence for the class is red, evidence against it is blue
WRONG = "#b2182b"
PANEL = 1.42  # height of a line of panels, in inches
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


@dataclass(frozen=True)
class Explanations:
    """Maps of the true and the target class, before and after an attack. All on the CPU.

    A notebook shows them as a picture.

    Attributes:
        images, attacked: x and x' [N, C_in, H, W].
        labels, targets: the true classes and the targets [N].
        probabilities, probabilities_adv: softmax at x and at x' [N, C].
        maps, maps_adv: at x and at x', raw [N, 2, h, w]: true class, target class.
        eps, norm: radius and norm of the attack's ball.
        classes: names of the classes; None for their numbers.
    """

    images: Tensor
    attacked: Tensor
    labels: Tensor
    targets: Tensor
    probabilities: Tensor
    probabilities_adv: Tensor
    maps: Tensor
    maps_adv: Tensor
    eps: float
    norm: Norm = "linf"
    classes: Sequence[str] | None = None

    def picture(self, classes: Sequence[str] | None = None) -> Picture:
        """A row for each image, as `explanation_figure` draws it."""
        return Picture(explanation_figure(self, classes))

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure that a notebook shows, and that `save` writes."""

    figure: Figure

    def save(self, path: str | Path) -> None:
        """Write the picture; the name ends in .png, .pdf or .svg."""
        save_picture(self.figure, path)

    def _repr_png_(self) -> bytes:
        import matplotlib as mpl

        with mpl.rc_context(STYLE), BytesIO() as file:
            self.figure.savefig(file, format="png", dpi=100)
            return file.getvalue()


def picture_path(path: str | Path) -> Path:
    """The path, if a picture can be written there.

    Raises:
        InputError: the suffix is not one of .png, .pdf and .svg.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"The name of a picture must end in {', '.join(SUFFIXES)}, got {path}.")
    return path


def save_picture(figure: Figure, path: str | Path) -> None:
    """Write a figure, atomically; the suffix decides the format."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), atomic_path(picture_path(path)) as temporary:
        figure.savefig(temporary)


def draw_explanations(
    found: Explanations, path: str | Path, classes: Sequence[str] | None = None
) -> None:
    """Draw explanations into a file, a row for each image, as `fastinterp explain` does.

    Args:
        found: see `explain`.
        path: a name that ends in .png, .pdf or .svg.
        classes: names of the classes; by default their numbers.

    Raises:
        InputError: the name has another ending.
    """
    save_picture(explanation_figure(found, classes), path)


def explanation_figure(found: Explanations, classes: Sequence[str] | None = None) -> Figure:
    """A row for each image: the image and its two maps, clean and then attacked.

    Maps are enlarged bilinearly and laid over a pale copy of their image. A row's four maps are
    divided by the largest absolute value among them, so they can be compared with each other.

    Args:
        found: see `explain`.
        classes: names of the classes; by default their numbers.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    n = len(found.images)
    names = list(classes or found.classes or map(str, range(found.probabilities.shape[1])))
    height = PANEL * n + 0.8
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height))
        grid = panel_grid(figure, n, left=0.012, top=1 - 0.52 / height)
        for row in range(n):
            draw_explanation(figure, grid, row, found, row, names)
        norm = "" if found.norm == "linf" else f" in {found.norm}"
        attacked = f"attacked towards the target, eps = {format_eps(found.eps)}{norm}"
        for heading, column in (("clean", 1), (attacked, 5)):
            centre = centre_of(figure, grid, column)
            figure.text(centre, 1 - 0.2 / height, heading, ha="center", va="center", fontsize=10)
        finish(figure, grid, left=0.012)
    return figure


def panel_grid(figure: Figure, lines: int, left: float, top: float) -> GridSpec:
    """Lines of panels in columns 0 to 2 (clean) and 4 to 6 (attacked), and the colour bar's in 8.

    Args:
        left, top: of the grid, as shares of the figure.
    """
    return figure.add_gridspec(
        lines,
        9,
        width_ratios=[1, 1, 1, 0.12, 1, 1, 1, 0.04, 0.06],
        left=left,
        right=0.915,
        top=top,
        bottom=0.3 / figure.get_figheight(),
        wspace=0.06,
        hspace=0.2,
    )


def centre_of(figure: Figure, grid: GridSpec, column: int) -> float:
    """The middle of a column, as a share of the figure's width."""
    box = grid[0, column].get_position(figure)
    return float(box.x0 + box.x1) / 2


def finish(figure: Figure, grid: GridSpec, left: float) -> None:
    """Add what explains the panels: the footnote and the colour bar."""
    y = 0.12 / figure.get_figheight()
    figure.text(left, y, FOOTNOTE, va="center", fontsize=7.5)
    colour_bar(figure, figure.add_subplot(grid[:, 8]))


def draw_explanation(
    figure: Figure, grid: GridSpec, line: int, found: Explanations, row: int, names: Sequence[str]
) -> Axes:
    """Draw one image of `found` into a line of a `panel_grid`; return the line's first panel."""
    axes = [figure.add_subplot(grid[line, column]) for column in (0, 1, 2, 4, 5, 6)]
    true, target = int(found.labels[row]), int(found.targets[row])
    scale = float(max(found.maps[row].abs().max(), found.maps_adv[row].abs().max())) or 1.0
    sides = (
        (axes[:3], found.images[row], found.maps[row], found.probabilities[row]),
        (axes[3:], found.attacked[row], found.maps_adv[row], found.probabilities_adv[row]),
    )
    for (picture, *panels), image, maps, p in sides:
        predicted = int(p.argmax())
        fitted(picture, f"predicted {_short(names[predicted])} ({p[predicted]:.2f})")
        picture.title.set_color("black" if predicted == true else WRONG)
        show_image(picture, image)
        roles = (("true", true), ("target", target))
        for panel, (role, label), one in zip(panels, roles, maps, strict=True):
            fitted(panel, f"{role} {_short(names[label])} ({p[label]:.2f})")
            panel.imshow(overlay(image, one / scale), interpolation="nearest")
    return axes[0]


def overlay(image: Tensor, values: Tensor) -> NDArray[np.float32]:
    """A map over a pale copy of its image.

    The larger a value, the more opaque it is, so that strong colours are those of the colour bar.

    Args:
        image: [C_in, H, W] in [0, 1]; a single channel is shown dark on light.
        values: [h, w] in [-1, 1], enlarged to H x W.

    Returns:
        RGB [H', W', 3] in [0, 1], at least 224 pixels high, so that the enlarged map is smooth.
    """
    import matplotlib as mpl

    grey = image.float().mean(dim=0)
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
    """Draw the scale of the maps; `label` says how they were normalised."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    mappable = mpl.cm.ScalarMappable(Normalize(-1, 1), COLOURS)
    bar = figure.colorbar(mappable, cax=axes, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label(label)
    bar.ax.set_title("for", fontsize=7.5)
    bar.ax.set_xlabel("against", fontsize=7.5)
    bar.outline.set_linewidth(0.6)


def bare(axes: Axes, title: str = "") -> None:
    """Take the ticks off a panel and give it a title."""
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def fitted(axes: Axes, title: str) -> None:
    """As `bare`, with the title set smaller where it would reach into the next panel."""
    from matplotlib.textpath import TextPath

    bare(axes, title)
    if not title:
        return
    # In points and from the letters' outlines, as a width in pixels depends on the resolution.
    points = 72 * axes.figure.bbox.width / axes.figure.dpi
    limit = 0.94 * points * axes.get_position(original=True).width  # rasters round letters up
    width = TextPath((0, 0), title, prop=axes.title.get_fontproperties()).get_extents().width
    if width > limit:
        axes.title.set_fontsize(float(axes.title.get_fontsize()) * limit / width)


def show_image(axes: Axes, image: Tensor) -> None:
    """Draw an image [C_in, H, W] in [0, 1] on the CPU; unless C_in is 3, the channels' mean."""
    shown = image.permute(1, 2, 0) if image.shape[0] == 3 else image.mean(dim=0)
    picture: NDArray[Any] = shown.float().numpy()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
