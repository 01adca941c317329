"""Figures as functions; each returns a matplotlib figure."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from likelify.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(images: Tensor, levels: int, *, columns: int = 8) -> np.ndarray:
    """Return images `(n, c, h, w)` of integers laid out in a grid, an array `(height, width[, 3])` in [0, 1].

    Rows are filled first; the places left over stay white. Images with other than three channels show their first.
    """
    array = images.detach().cpu().double().numpy() / (levels - 1)
    array = array if array.shape[1] == 3 else array[:, :1]
    count, channels, height, width = array.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    # A margin that is thin beside the image, but at least one pixel.
    margin = max(1, height // 16)
    grid = np.ones((channels, rows * (height + margin) - margin, columns * (width + margin) - margin))
    for index in range(count):
        top, left = index // columns * (height + margin), index % columns * (width + margin)
        grid[:, top : top + height, left : left + width] = array[index].clip(0, 1)
    return grid.transpose(1, 2, 0) if channels == 3 else grid[0]


def show_images(panels: dict[str, Tensor], levels: int, *, columns: int = 8) -> "Figure":
    """Show titled grids of images side by side.

    Args:
        panels: for each title its images `(n, c, h, w)`.
        levels: number of values of a pixel.
        columns: images per row of a grid.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "app") from error
    figure = Figure(figsize=(4.2 * len(panels), 4.5), layout=ConstrainedLayoutEngine(w_pad=0.15))
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (title, images) in zip(axes, panels.items(), strict=True):
        axis.imshow(image_grid(images, levels, columns=columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    return figure
