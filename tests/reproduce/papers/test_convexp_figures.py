"""Figures of the convolution exponential paper: drawn without cells, or from the pictures of some."""

import numpy as np
import pytest
import torch

from likelify.plots import read_tiles, tiles
from likelify.reproduce.catalog import experiment
from likelify.reproduce.cell import Cell
from likelify.reproduce.papers import convexp_figures
from likelify.reproduce.session import Session


def test_a_figure_without_cells_is_drawn_and_has_a_page(tmp_path):
    session = Session.open(experiment("figure-2"), out=tmp_path)
    assert (session.cells, session.todo()) == ([], [])
    (page,) = session.write(session.report())
    assert "![A convolution of images, and as a product with a matrix](figure-2.svg)" in page.read_text()
    assert "bits/dim" not in page.read_text()
    assert sorted(file.name for file in page.parent.iterdir()) == ["figure-2.png", "figure-2.svg", "report.md"]
    assert (page.parent / "figure-2.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_the_bounds_are_in_the_caption_and_below_it(tmp_path):
    session = Session.open(experiment("figure-4"), out=tmp_path)
    (table,) = session.report().tables
    assert [row[0] for row in table.rows] == ["2", "4", "6", "8", "10", "12"]
    certified, true = (np.array([float(row[place]) for row in table.rows]) for place in (5, 6))
    assert (true < certified).all()
    assert certified[2] < 2e-4


def test_samples_of_several_cells_make_one_sheet(tmp_path):
    made = {}
    for number, title in enumerate((convexp_figures.SYLVESTER, convexp_figures.VARIATIONAL)):
        made[title] = tmp_path / f"{number}.png"
        images = torch.full((128, 3, 32, 32), 40 * (number + 1))
        images[64:] = 250
        made[title].write_bytes(tiles(images, 256))
    draw = experiment("figure-5").draw
    assert draw is not None
    assert draw({}) is None
    drawing = draw(made)
    assert drawing is not None
    assert drawing.svg.decode().count("<image") == 3
    above, below = np.array_split(_pixels(drawing.png), 2)
    corners = (part[:, side] for part in (above, below) for side in (slice(None, 400), slice(-400, None)))
    # Two models side by side, the real images below the first; the last place stays white.
    assert [int(np.median(corner)) for corner in corners] == [40, 80, 250, 255]


def _pixels(png):
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)[..., 0]


@pytest.mark.parametrize("scale", ["cpu", "quick", "paper"])
def test_samples_are_drawn_from_the_models_of_table_2_and_a_pyramid(scale):
    figure = experiment("figure-5", scale)
    cells = [cell for cell in figure.cells() if isinstance(cell, Cell)]
    assert {cell.picture for cell in cells} == {"tiles"}
    assert [cell.model["model"] for cell in cells] == ["sylvester", "sylvester", "pyramid"]
    assert all(cell.fit.get("max_time") is not None or scale == "paper" for cell in cells)
    # Whatever is fitted for the table is not fitted again.
    table = [cell for cell in experiment("table-2", scale).cells(seeds=1) if isinstance(cell, Cell)]
    fits = [(cell.model, cell.fit, cell.data, cell.seed) for cell in table]
    assert all((cell.model, cell.fit, cell.data, cell.seed) in fits for cell in cells[:2])


@pytest.mark.slow
def test_tiles_of_a_cell_hold_samples_and_real_images(tmp_path):
    from dataclasses import replace

    from tests.reproduce.trial import METHODS, experiment, run_here

    method = replace(METHODS[1], picture="tiles")
    session = Session.open(experiment(methods=(method,), baseline=None, seeds=1), out=tmp_path)
    run_here(session.cells, session.results, session.runs)
    (picture,) = session.results.glob("*.png")
    images = read_tiles(picture.read_bytes(), 8, 8)
    assert images.shape == (128, 1, 8, 8)
    # The trial has 50 test images; what fills the sheet up is black.
    assert images[64:114].any((1, 2, 3)).all()
    assert not images[114:].any()
