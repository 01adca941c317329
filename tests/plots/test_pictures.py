"""Pictures are the integers that they show, in grids that fit their number."""

import io

import numpy as np
import pytest
from PIL import Image

from likelify.errors import ConfigError
from likelify.plots.pictures import (
    LARGEST_SIDE,
    grid_columns,
    grid_of,
    lines_of,
    one_image,
    pairs_of,
    picture,
    stretched,
)


def read(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 10, 13, 64, 100, 1000])
def test_no_row_is_empty_and_few_places_are(count):
    columns = grid_columns(count)
    rows = -(-count // columns)
    assert rows * columns - count < columns
    assert rows * columns <= 1.34 * count
    assert columns / rows <= 5


@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (17, 1), (256, 1), (256, 3), (4096, 1), (65536, 1)])
def test_a_single_image_reads_back_as_the_integers(levels, channels):
    pixels = np.random.default_rng(0).integers(0, levels, (channels, 5, 7))
    pixels[0, 0, :2] = 0, levels - 1
    found = read(one_image(pixels, levels))
    top = 255 if levels <= 256 else 65535
    values = found if channels == 3 else found[..., None]
    assert np.array_equal(np.rint(values * ((levels - 1) / top)).transpose(2, 0, 1), pixels)
    assert found.max() > 255 if levels > 256 else found.dtype == np.uint8


def test_images_that_png_cannot_hold_are_refused():
    with pytest.raises(ConfigError, match=r"Images of 3 channels and 4,096 levels cannot be .* write .npy"):
        one_image(np.zeros((3, 2, 2), int), 4096)
    with pytest.raises(ConfigError, match="Images of 2 channels cannot"):
        one_image(np.zeros((2, 2, 2), int), 256)


def test_a_grid_holds_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 17, (7, 1, 8, 6))
    grid = read(picture({"": pixels}, 17))
    columns, zoom = grid_columns(7, 6 / 8), 16
    high, wide = 8 * zoom, 6 * zoom
    margin = (grid.shape[1] - columns * wide) // (columns - 1)
    for index, image in enumerate(pixels):
        top, left = index // columns * (high + margin), index % columns * (wide + margin)
        assert np.array_equal(grid[top : top + high : zoom, left : left + wide : zoom], stretched(image[0], 17))
    assert (grid[-1, -1], grid[high, 0]) == (255, 255)


def test_large_images_are_reduced_to_a_picture_that_is_not_monstrous():
    grid = grid_of(np.full((9, 3, 1500, 1000), 7), 256)
    assert max(grid.shape) < 1.1 * LARGEST_SIDE
    assert (grid[0, 0] == 7).all()
    assert grid_of(np.zeros((1, 1, 2000, 2000), int), 256).shape == (2000, 2000)
    with pytest.raises(ConfigError, match="at most 10,000 images, not 10,001"):
        grid_of(np.zeros((10_001, 1, 1, 1), int), 2)


def test_panels_have_titles_and_keep_their_colours():
    red = np.zeros((4, 3, 4, 4), int)
    red[:, 0] = 255
    found = read(picture({"grey": np.zeros((4, 1, 4, 4), int), "red": red}, 256))
    assert found.shape[2] == 3
    assert found[:20].min() < 100  # what is written
    assert (found[-1, -1] == (255, 0, 0)).all()
    assert (found[-1, 0] == 0).all()


def test_sequences_are_lines_and_rows_are_pairs():
    sequences = np.random.default_rng(0).normal(size=(5, 2, 30))
    assert read(lines_of({"a": sequences, "b": sequences[:3]})).std() > 1
    assert read(pairs_of({"": np.random.default_rng(0).normal(size=(50, 3))}, ("a", "b", "c"))).std() > 1
    with pytest.raises(ConfigError, match="at most 100 sequences"):
        lines_of({"": np.zeros((101, 1, 3))})
