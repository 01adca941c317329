"""Pictures are the integers that they show, in grids that fit their number."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from likelify.errors import ConfigError
from likelify.plots import pictures
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
from likelify.schema import ColumnSchema


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


WORDS = ColumnSchema.category("job ($x$) of a", ("baker", "a very long word", "x"))
DAYS = ColumnSchema(name="until", kind="date", unit="day")


@pytest.mark.parametrize(
    "column",
    [
        np.full(30, np.nan),
        np.full(30, 1e17),
        1.7e18 + np.arange(30.0),
        np.array([-1e308, 1e308] * 15),
        np.array([20240101, 20240131] * 15, dtype=np.float32),
    ],
)
def test_pairs_of_columns_of_any_values_are_drawn(column):
    rows = np.stack([column, np.linspace(0, 1, 30)], 1)
    assert read(pairs_of({"": rows}, ["cost $_per_$", "b"])).shape[0] > 300


def test_words_and_days_of_pairs_are_shown_as_such(monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "_saved", lambda figure: figures.append(figure) or b"")
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 3, 2000), rng.integers(0, 3, 2000), rng.choice([19_000.0, 2_932_896.0], 2000)], 1)
    pairs_of({"": rows}, ["a", "b", "c"], (WORDS, WORDS, DAYS))
    axes = np.array(figures[0].axes).reshape(3, 3)
    assert [tick.get_text() for tick in axes[1, 0].get_xticklabels()] == ["baker", "a very l…", "x"]
    points = axes[1, 0].collections[0].get_offsets()
    # Independent words: what sets the points of one apart says nothing of the other.
    apart = points - np.rint(points)
    assert np.abs(apart).max() < 0.3
    assert abs(np.corrcoef(apart.T)[0, 1]) < 0.1
    axes[2, 2].figure.canvas.draw()


def test_narrow_images_have_room_for_their_titles():
    narrow = {"reconstruction": np.zeros((1, 1, 64, 4), int), "original": np.zeros((1, 1, 64, 4), int)}
    pixels = np.asarray(Image.open(io.BytesIO(picture(narrow, 256))).convert("L"))
    # The first title ends before the second begins: there is a white column between them.
    title = pixels[:28]
    dark = np.flatnonzero((title < 128).any(0))
    assert np.diff(dark).max() >= 24
    assert dark[0] >= 0
    assert pixels.shape[1] > dark[-1] + 1


def test_a_sequence_of_one_time_is_a_point():
    empty = np.asarray(Image.open(io.BytesIO(lines_of({"": np.full((1, 1, 1), np.nan)}))).convert("RGB"))
    point = np.asarray(Image.open(io.BytesIO(lines_of({"": np.zeros((1, 1, 1))}))).convert("RGB"))
    coloured = [int((np.ptp(image.astype(int), axis=2) > 60).sum()) for image in (empty, point)]
    assert coloured[0] == 0
    assert coloured[1] > 5


def _axes_of(monkeypatch, panels, columns, meaning=()):
    """Return the axes that `pairs_of` has drawn."""
    kept = []
    monkeypatch.setattr(pictures, "_saved", lambda figure: kept.append(figure) or b"")
    pairs_of(panels, columns, meaning)
    side = math.isqrt(len(kept[0].axes))
    return np.array(kept[0].axes, dtype=object).reshape(side, side)


def test_all_panels_are_inside_of_the_axes(monkeypatch):
    numbers = np.random.default_rng(0)
    panels = {"data": numbers.normal(size=(200, 2)), "samples": numbers.normal(size=(200, 2)) + 6}
    axes = _axes_of(monkeypatch, panels, ["x", "y"])
    low, high = min(p.min() for p in panels.values()), max(p.max() for p in panels.values())
    for axis in (axes[0, 0], axes[1, 0], axes[1, 1]):
        assert axis.get_xlim()[0] < low + 1
        assert axis.get_xlim()[1] > high - 1
    assert axes[1, 0].get_ylim()[1] > panels["samples"][:, 1].max()


def test_histograms_of_panels_have_the_same_bins(monkeypatch):
    even = np.linspace(0, 1, 400)[:, None]
    (axis,) = _axes_of(monkeypatch, {"data": even, "samples": np.concatenate([even, [[-9.0]]])}, ["x"])[0]
    one, other = (patch.get_data() for patch in axis.patches)
    assert np.array_equal(one.edges, other.edges)
    assert abs(one.values - other.values).max() < 0.01


@pytest.mark.parametrize("spread", [3.0, 20.0, 500.0])
def test_bins_of_whole_numbers_hold_as_many_of_them(monkeypatch, spread):
    values = np.tile(np.arange(2 * spread), 4)[:, None]
    column = ColumnSchema(name="n", kind="integer", rest="steps", step=1.0)
    (axis,) = _axes_of(monkeypatch, {"": values}, ["n"], (column,))[0]
    shares = axis.patches[0].get_data().values
    assert np.allclose(shares[:-1], shares[0])
