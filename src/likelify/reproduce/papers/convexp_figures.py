"""The figures of the convolution exponential paper (Hoogeboom et al. 2020): four are drawn, the fifth shows samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.errors import needs
from likelify.fitting import recipes
from likelify.reproduce.cell import Measuring
from likelify.reproduce.drawing import Draw, Drawing
from likelify.reproduce.experiment import Experiment, Method, Paper, Scale
from likelify.reproduce.papers import convexp

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

SOURCE = (
    "E. Hoogeboom, V. Garcia Satorras, J. M. Tomczak, M. Welling, 'The convolution exponential and generalized "
    "Sylvester flows', 2020"
)
# A kernel whose taps can be told apart, and an image of 5x5 pixels in thirds.
KERNEL = ((0.05, 0.30, 0.10), (0.50, -0.20, -0.40), (-0.10, 0.25, 0.15))
IMAGE = ((0, 0, 1, 0, 0), (0, 1, 2, 1, 0), (1, 2, 3, 2, 1), (0, 0, 2, 1, 0), (0, 0, 1, 1, 1))
EDGES = (0.6, 0.0, -0.6)
# Of scikit-learn's photograph of a flower: rows and columns, and how many pixels make one.
ROWS, COLUMNS, REDUCED = slice(66, 378), slice(150, 462), 3
# A random kernel on so many channels and pixels, scaled to this norm by the tight bound.
CHANNELS, SIDE, NORM = 4, 8, 0.9
DEGREE, SHOWN = 12, (2, 4, 6, 8, 10, 12)

SYLVESTER, VARIATIONAL = "convolutional Sylvester", "convolutional Sylvester, variational noise"
PYRAMID = "pyramid (exact)"
# The sheets of samples hold 8 bits whatever the number of levels.
LEVELS, TILE_COLUMNS = 256, 8
# Of them side by side.
ACROSS = 2
CAVEATS: dict[Scale, str] = {
    "cpu": "CPU scale: small models, some minutes of one processor for each, on 32x32 crops of two photographs. The "
    "paper's samples are of CIFAR-10 after days of a GPU: what can be compared here is one model with another.",
    "paper": "Paper scale: the presets of table 2 on CIFAR-10; parts of their architecture are reconstructions.",
    "quick": "A trial of the machinery: seconds of fitting on 8x8 digits. The figures mean nothing.",
}


def figure_1(_: Scale) -> Experiment:
    """Return the figure of a convolution's exponential as a matrix."""
    return _drawn("figure-1", "Figure 1: the exponential of a convolution as a matrix", _exponential)


def figure_2(_: Scale) -> Experiment:
    """Return the figure of a convolution as a matrix."""
    return _drawn("figure-2", "Figure 2: a convolution as a matrix", _convolution)


def figure_3(_: Scale) -> Experiment:
    """Return the figure of the terms of a convolution exponential."""
    return _drawn("figure-3", "Figure 3: the terms of a convolution exponential, and of its inverse", _terms)


def figure_4(_: Scale) -> Experiment:
    """Return the figure of bounds of the terms."""
    return _drawn("figure-4", "Figure 4: how fast the series of an exponential ends", _bounds)


def figure_5(scale: Scale) -> Experiment:
    """Return the figure of samples: the convolutional Sylvester flow of table 2, and the default model of photographs.

    At CPU scale the Sylvester flows are those of table 2, fitted once for both.
    """
    sylvester = (convexp.stack("Sylvester", noise, scale) for noise in convexp.NOISES)
    titles = {"Sylvester, uniform": SYLVESTER, "Sylvester, variational": VARIATIONAL}
    methods = [replace(method, title=titles[method.title], picture="tiles", against=None) for method in sylvester]
    table = convexp.table_2(scale)
    return Experiment(
        "figure-5",
        "Figure 5: samples",
        scale,
        [*methods, _pyramid(scale)],
        data=table.data,
        seeds=1,
        fit=table.fit,
        budget=table.budget,
        measuring=table.measuring,
        paper=Paper(f"{SOURCE}: figure 5"),
        caveat=CAVEATS[scale],
        device=table.device,
        draw=partial(_samples, side=8 if scale == "quick" else 32),
    )


def _pyramid(scale: Scale) -> Method:
    """Return the default model of photographs, with the fit that suits it, as long as the others."""
    small = {"width": 8, "blocks": 0, "head": 8} if scale == "quick" else {}
    fit = {name: value for name, value in recipes.FITS["pyramid"].items() if name not in ("steps", "max_time")}
    fit |= {} if scale == "paper" else {"schedule": "cosine"}
    return Method(PYRAMID, {"model": "pyramid"} | small, fit=fit, picture="tiles")


def _samples(pictures: Mapping[str, Path], *, side: int) -> Drawing | None:
    """Put the samples of all methods beside one another, and the real images that follow them in each picture."""
    from likelify.plots import panels_as_svg, picture, read_tiles

    panels = {}
    for title, file in pictures.items():
        images = read_tiles(file.read_bytes(), side, side)
        panels[title] = images[: len(images) // 2]
        panels["real (test)"] = images[len(images) // 2 :]
    if not panels:
        return None
    panels["real (test)"] = panels.pop("real (test)")
    caption = (
        "64 samples of each model, drawn at temperature 1 with seed 0 and not chosen, beside as many images of the "
        "test split. The table has the models' figures on it.",
    )
    png = picture(panels, LEVELS, columns=TILE_COLUMNS, across=ACROSS)
    svg = panels_as_svg(panels, LEVELS, columns=TILE_COLUMNS, across=ACROSS)
    return Drawing("figure-5", "Samples beside real images", caption, png, svg)


def _drawn(name: str, title: str, draw: Draw) -> Experiment:
    """Return an experiment without cells, which is the same at every scale."""
    return Experiment(
        name,
        title,
        "cpu",
        methods=(),
        data=(),
        seeds=1,
        fit={},
        budget=None,
        measuring=Measuring(),
        paper=Paper(f"{SOURCE}: {name.replace('-', ' ')}"),
        draw=draw,
    )


def _exponential(_: Mapping[str, Path]) -> Drawing:
    from likelify.plots import exponential_as_matrix

    caption = (
        "The matrix M of the convolution of figure 2 on an image of 1x5x5 pixels, its exponential, and the exponential "
        "of -M, which is the inverse; lines separate the rows of the image. M has at most nine entries in a row, the "
        "exponential reaches the whole image, less and less with the distance.",
        "The determinant of the exponential is e to the trace of M, here 25 times the central tap: always positive, "
        "and known without any of these matrices. Layers never form them: they apply the convolution some times to "
        "the image.",
    )
    kernel, image = _small()
    height, width = image.shape[1:]
    return _drawing(
        "figure-1",
        "A convolution, its exponential and its inverse as matrices",
        caption,
        exponential_as_matrix(kernel, (height, width)),
    )


def _convolution(_: Mapping[str, Path]) -> Drawing:
    from likelify.plots import convolution_as_matrix

    caption = (
        "A convolution of an image x of 1x5x5 pixels with a kernel m of 3x3 taps (left) is the product of a matrix M "
        "with the image as a vector (right). Each row of M holds the taps at the neighbours of one pixel; beyond the "
        "border is zero. Red is above zero, blue below, white is zero; matrix and images have scales of their own.",
    )
    kernel, image = _small()
    return _drawing(
        "figure-2",
        "A convolution of images, and as a product with a matrix",
        caption,
        convolution_as_matrix(kernel, image),
    )


def _terms(_: Mapping[str, Path]) -> Drawing:
    import torch

    from likelify.plots import exponential_terms

    caption = (
        "Forward (above), the exponential of the edge filter m = [0.6, 0, -0.6] is the photograph plus its edges, the "
        "edges of these, and so on, each divided by a factorial. Back (below), the same filter gives the inverse, with "
        "alternating signs. The numbers are the 2-norms of the terms beside that of the first; each term has a scale "
        "of colours of its own, red above zero and blue below.",
        "As the filter is antisymmetric, M is skew and its exponential a rotation of all pixels: it changes neither "
        "the norm of the image nor volumes, and its inverse is its transpose. The photograph is scikit-learn's "
        "flower.jpg (CC-BY).",
    )
    kernel = torch.tensor(EDGES, dtype=torch.float64).reshape(1, 1, 1, 3)
    return _drawing(
        "figure-3", "Terms of the exponential of an edge filter", caption, exponential_terms(kernel, _photograph())
    )


def _bounds(_: Mapping[str, Path]) -> Drawing:
    import torch

    from likelify.linalg import ConvMap
    from likelify.plots import exponential_bounds, series_decay

    shape = (CHANNELS, SIDE, SIDE)
    random = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = random * (NORM / ConvMap(random, bound="torus").norm_bound(shape))
    map_ = ConvMap(kernel, bound="torus")
    decay = series_decay(map_, shape, degree=DEGREE)
    norms = {name: float(sizes[1]) for name, sizes in decay.sizes.items()}
    one, two, infinite = norms.values()
    caption = (
        f"Left: the term of order i of the exponential of a random 3x3 convolution of {CHANNELS} channels, on images "
        f"of {SIDE}x{SIDE} pixels: its bounds from the norms p = 1, 2 and infinity (lines), and its true norms (dots). "
        f"The norms of M are {one:.2f}, {two:.3f} and {infinite:.2f}: the kernel was scaled so that our guaranteed "
        f"bound of the 2-norm is {NORM}.",
        "Right: what is left out when the series ends after degree i. The line is what the library certifies from "
        "nothing but that bound, the dots are the truth. The dotted lines stand at the six terms that the paper finds "
        f"sufficient at this norm: certified to {decay.tail[6]:.0e}, and truly right to {decay.rest[6]:.0e}. A layer "
        "also looks at the last term that it computed, so it ends earlier than the line says.",
    )
    headings = [
        "degree",
        "bound of the term, p = 1",
        "p = 2",
        "p = infinity",
        "true 2-norm",
        "certified rest",
        "true rest",
    ]
    columns = (*decay.sizes.values(), decay.terms["2"], decay.tail, decay.rest)
    rows = [[str(i), *(f"{column[i]:.1e}" for column in columns)] for i in SHOWN]
    figure = exponential_bounds(decay)
    return _drawing("figure-4", "Terms and rests of the series of an exponential", caption, figure, headings, rows)


def _drawing(
    name: str,
    title: str,
    caption: tuple[str, ...],
    figure: Figure,
    headings: list[str] | None = None,
    rows: list[list[str]] | None = None,
) -> Drawing:
    from likelify.plots import png_of, svg_of

    return Drawing(name, title, caption, png_of(figure), svg_of(figure), headings or [], rows or [])


def _small() -> tuple[Tensor, Tensor]:
    import torch

    kernel = torch.tensor(KERNEL, dtype=torch.float64)[None, None]
    return kernel, torch.tensor(IMAGE, dtype=torch.float64)[None] / 3


def _photograph() -> Tensor:
    """Return a part of a photograph in grey, `(1, 104, 104)`."""
    with needs("scikit-learn", "app"):
        from sklearn.datasets import load_sample_image
    import torch

    photo = torch.from_numpy(load_sample_image("flower.jpg")[ROWS, COLUMNS].mean(2) / 255)
    return torch.nn.functional.avg_pool2d(photo[None], REDUCED)
