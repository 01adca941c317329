"""Images as one array, to be shown by whatever shows arrays."""

import numpy as np
from torch import Tensor


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
