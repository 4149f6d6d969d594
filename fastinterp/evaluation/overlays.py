"""Maps of any interpreter over their images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._utils.errors import InputError
from .._utils.require import require_floating
from .pictures import PANEL, STYLE, Picture, colour_bar, fitted, overlay, show_image


def overlay_maps(images: Tensor, maps: Tensor, titles: Sequence[str] | None = None) -> Picture:
    """Draw maps over pale copies of their images, a row for each image.

    `overlay_maps(x, CAM(model)(x, classes))` is shown by a notebook, and `.save(path)` writes it.
    A row's maps are divided by the largest absolute value among them.

    Args:
        images: x [N, C_in, H, W] in [0, 1], on any device.
        maps: [N, C', h, w], as interpreters give them, with or without a graph; or
            [N, C', C_in, h, w], which are summed over channels.
        titles: of the C' columns of maps.

    Raises:
        InputError: the shapes do not fit, or there are more or fewer titles than maps.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    x = require_floating("overlay_maps", "images", images).detach().cpu().float()
    values = require_floating("overlay_maps", "maps", maps).detach().cpu().float()
    if x.dim() != 4 or values.dim() not in (4, 5) or len(x) != len(values) or len(x) == 0:
        raise InputError(
            "overlay_maps: images must be [N, C_in, H, W] and maps [N, C', h, w] or "
            f"[N, C', C_in, h, w], got {list(images.shape)} and {list(maps.shape)}."
        )
    values = values.sum(dim=2) if values.dim() == 5 else values
    columns = values.shape[1]
    if titles is not None and len(titles) != columns:
        raise InputError(f"overlay_maps: {columns} maps need {columns} titles, got {len(titles)}.")
    titles = [""] * columns if titles is None else titles
    widths = [1.0] * (1 + columns) + [0.06]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL * (columns + 2), PANEL * len(x) + 0.5))
        grid = figure.add_gridspec(len(x), columns + 2, width_ratios=widths, right=0.88)
        for row, (image, of_image) in enumerate(zip(x, values, strict=True)):
            panel = figure.add_subplot(grid[row, 0])
            fitted(panel, "")
            show_image(panel, image)
            scale = float(of_image.abs().max()) or 1.0
            for column, one in enumerate(of_image):
                panel = figure.add_subplot(grid[row, column + 1])
                fitted(panel, titles[column] if row == 0 else "")
                panel.imshow(overlay(image, one / scale), interpolation="nearest")
        colour_bar(figure, figure.add_subplot(grid[:, -1]))
    return Picture(figure)
