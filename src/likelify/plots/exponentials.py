"""Pictures of convolutions and their exponentials: as matrices, term by term, and how fast their series ends.

They are figures 1 to 4 of Hoogeboom et al. 2020, "The convolution exponential and generalized Sylvester flows", for any
kernel. Each function returns a figure of matplotlib; `png_of` and `svg_of` make files of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.bounds import exp_tail
from likelify.linalg.conv import ConvMap
from likelify.linalg.expm import exp_action
from likelify.linalg.expm.problem import largest_of
from likelify.linalg.maps import LinearMap
from likelify.plots.equations import Panel, Part, draw_equations
from likelify.plots.files import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likelify.shapes import Shape

# Inches of a cell: of small images, and of matrices.
IMAGE_CELL, MATRIX_CELL = 0.19, 0.1
# Inches of an image of many pixels.
PICTURE = 1.05
# Of e, whose value is still a number.
LARGEST_POWER = 700
NORMS = {"1": 1, "2": 2, r"\infty": math.inf}
COLOURS = {"1": "#d08c1d", "2": "#1f5fa8", r"\infty": "#8a3f93"}
OURS, TRUTH = "#1f5fa8", "#222222"
# Terms beyond those that are shown, of which the rest of a series is summed: they are less than 1e-30 of it.
BEYOND = 60


def convolution_as_matrix(kernel: Tensor, x: Tensor) -> Figure:
    r"""Draw a convolution twice: of images, and as the product of a matrix with the image as a vector.

    `m * x` on `(1, h, w)` is `M vec(x)` with one row and one column of `M` for each pixel; beyond the border is zero.

    Args:
        kernel: `(1, 1, kh, kw)` with odd numbers of taps.
        x: `(1, h, w)`.

    Raises:
        ShapeError: if there are several channels.

    Source:
        Hoogeboom et al. 2020, figure 2.
    """
    map_, x = _single_channel(kernel, x), x.detach()
    y, matrix = map_.apply(x[None])[0], map_.materialize(x.shape)
    return draw_equations(
        [
            [
                Panel("$m$", kernel[0, 0], cell=IMAGE_CELL),
                r"$\star$",
                Panel("$x$", x[0], scale="x", cell=IMAGE_CELL),
                "$=$",
                Panel(r"$m \star x$", y[0], scale="x", cell=IMAGE_CELL),
                "",
                Panel("$M$", matrix, cell=MATRIX_CELL, block=x.shape[2]),
                r"$\cdot$",
                _vector(r"$\vec{x}$", x),
                "$=$",
                _vector(r"$M\vec{x}$", y),
            ]
        ],
    )


def exponential_as_matrix(kernel: Tensor, positions: tuple[int, int]) -> Figure:
    r"""Draw the matrix of a convolution, that of its exponential, and that of the inverse, in one scale of colours.

    `exp(M) = sum_k M^k / k!` has the determinant `e^(tr M)`, and its inverse is `exp(-M)`. Lines separate the rows
    of the image.

    Args:
        kernel: `(1, 1, kh, kw)` with odd numbers of taps.
        positions: height and width of the image.

    Raises:
        ShapeError: if there are several channels.

    Source:
        Hoogeboom et al. 2020, figure 1.
    """
    shape = (1, *positions)
    map_ = _single_channel(kernel, kernel.new_zeros(shape))
    matrix, trace = map_.materialize(shape), float(map_.trace(shape))
    panels = (
        ("$M$", matrix, rf"$\mathrm{{tr}}\,M = {trace:g}$"),
        (r"$\exp(M)$", torch.matrix_exp(matrix), _determinant(trace)),
        (r"$\exp(-M) = \exp(M)^{-1}$", torch.matrix_exp(-matrix), _determinant(-trace)),
    )
    parts: list[Part] = []
    for title, values, note in panels:
        parts += [Panel(title, values, scale="matrix", cell=MATRIX_CELL, block=positions[1], note=note), ""]
    return draw_equations([parts[:-1]], bar="matrix")


def _determinant(trace: float) -> str:
    value = f" = {math.exp(trace):.3g}" if abs(trace) < LARGEST_POWER else ""
    return rf"$\det = e^{{{trace:g}}}{value}$"


def exponential_terms(kernel: Tensor, x: Tensor, *, terms: int = 5) -> Figure:
    r"""Draw the terms of a convolution exponential and of its inverse as images, each in its own scale.

    Forward `z = x + m * x + (m * m * x) / 2! + ...`, and back `x = z - m * z + (m * m * z) / 2! - ...`: the same
    convolutions. Below each term is its 2-norm beside that of the input. Results hold all terms, not only those shown.

    Args:
        kernel: `(1, 1, kh, kw)` with odd numbers of taps.
        x: `(1, h, w)`.
        terms: that are shown after the first.

    Raises:
        ShapeError: if there are several channels.

    Source:
        Hoogeboom et al. 2020, figure 3.
    """
    map_, x = _single_channel(kernel, x), x.detach()
    z = exp_action(map_, x[None]).value[0]
    back = exp_action(map_, z[None], time=-1.0).value[0]
    forward = _terms_of(map_, x, "x", 1.0, terms)
    reverse = _terms_of(map_, z, "z", -1.0, terms)
    result = Panel(r"$z = e^m \star x$", z[0], grey=True, cell=PICTURE / x.shape[1])
    again = Panel(r"$x = e^{-m} \star z$", back[0], grey=True, cell=PICTURE / x.shape[1])
    # The sign of the first term that is not shown is above.
    rest = r"$\pm\cdots=$" if terms % 2 else r"$\mp\cdots=$"
    return draw_equations([[*forward, r"$+\cdots=$", result], [*reverse, rest, again]])


def _terms_of(map_: LinearMap, x: Tensor, name: str, sign: float, terms: int) -> list[Part]:
    cell = PICTURE / x.shape[1]
    size = float(torch.linalg.vector_norm(x))
    parts: list[Part] = [Panel(f"${name}$", x[0], grey=True, cell=cell, note="1")]
    term = x[None]
    for k in range(1, terms + 1):
        term = map_.apply(term) * (sign / k)
        power = rf"{{\star}}^{{{k}}}\," if k > 1 else r"\star "
        shown = rf"m\,{power}{name}" + (rf"\,/\,{k}!" if k > 1 else "")
        positive = sign > 0 or k % 2 == 0
        # The sign stands before the panel, so the panel is without it.
        values = term[0, 0] if positive else -term[0, 0]
        note = f"{float(torch.linalg.vector_norm(term)) / size:.2g}" if size else "0"
        parts += ["$+$" if positive else "$-$", Panel(f"${shown}$", values, cell=cell, note=note)]
    return parts


@dataclass(frozen=True)
class Decay:
    """How large the terms of the series of an exponential are, and what is left out after some of them.

    Attributes:
        sizes: for each norm the bounds `||M||_p^i / i!` for `i = 0 .. degree`.
        terms: for each norm the true `||M^i||_p / i!`.
        tail: bound of what is left out after degree `i`, from the norm bound that the map certifies.
        rest: the true 2-norm `||exp(M) - sum_{k <= i} M^k / k!||`.
        bound: the norm bound that the map certifies.
    """

    sizes: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]
    tail: np.ndarray
    rest: np.ndarray
    bound: float


def series_decay(map_: LinearMap, event_shape: Shape, *, degree: int = 12) -> Decay:
    r"""Return how fast the series of `exp(M)` ends: bounds and true values, from the matrix in double precision.

    `||M||_1` and `||M||_inf` are the largest sums over columns and rows, `||M||_2` the largest singular value. The
    bound of the rest is that of every certificate of the library, `exp_tail(b, i)` with the map's own `b >= ||M||_2`.

    Args:
        map_: with parameters for all rows alike.
        event_shape: of one event, of at most some hundred elements.
        degree: last term.

    Raises:
        ShapeError: if the map has parameters of its own for each row.

    Source:
        Hoogeboom et al. 2020, section 3 and figure 4; the rest is bounded by a geometric series (`exp_tail`).
    """
    matrix = map_.materialize(event_shape).double().detach()
    if matrix.ndim != 2:
        raise ShapeError(f"A series is drawn of one map; this one holds {map_.rows} maps, one for each row.")
    powers = [torch.eye(len(matrix), dtype=matrix.dtype)]
    for k in range(1, degree + BEYOND + 1):
        powers.append(powers[-1] @ matrix / k)
    rests, rest = [], torch.zeros_like(matrix)
    for power in reversed(powers):
        rests.append(rest)
        rest = rest + power
    steps = range(degree + 1)
    sizes, terms = {}, {}
    for name, p in NORMS.items():
        size = float(torch.linalg.matrix_norm(matrix, p))
        # One factor after the other: powers of a large norm alone would be no numbers.
        sizes[name] = np.cumprod([1.0, *(size / i for i in steps[1:])])
        terms[name] = np.array([float(torch.linalg.matrix_norm(powers[i], p)) for i in steps])
    bound = largest_of(map_.norm_bound(event_shape))
    tail = np.array([exp_tail(bound, i) for i in steps])
    left = np.array([float(torch.linalg.matrix_norm(rests[-1 - i], 2)) for i in steps])
    return Decay(sizes, terms, tail, left, bound)


def exponential_bounds(decay: Decay, *, mark: int | None = 6) -> Figure:
    r"""Draw how fast the series of an exponential ends.

    On the left the terms: bounds `||M||_p^i / i!` for p = 1, 2 and infinity as lines, true `||M^i||_p / i!` as dots. On
    the right what is left out after degree `i`: the bound that every certificate of the library uses, and the truth.

    Args:
        decay: what `series_decay` found of a map.
        mark: a degree to mark; six terms are what the paper finds sufficient at norm 0.9.

    Source:
        Hoogeboom et al. 2020, figure 4.
    """
    figure = new_figure(8.6, 3.9)
    left, right = figure.subplots(1, 2, sharey=True)
    steps = np.arange(len(decay.tail))
    # The first and the last often coincide, so one is wider than the other.
    for (name, colour), wide in zip(COLOURS.items(), (3.2, 1.6, 1.2), strict=True):
        left.plot(steps, decay.sizes[name], color=colour, lw=wide, label=rf"$\|M\|_{{{name}}}^i\,/\,i!$")
    for (name, colour), wide in zip(COLOURS.items(), (6.5, 4.0, 4.0), strict=True):
        left.plot(steps, decay.terms[name], "o", color=colour, ms=wide, label=rf"$\|M^i\|_{{{name}}}\,/\,i!$")
    _finish(left, "term $i$", "Size of a term", columns=2)
    right.plot(steps, decay.tail, color=OURS, label=rf"certified, from $\|M\|_2 \leq {decay.bound:.3g}$")
    right.plot(steps, decay.rest, "o", color=TRUTH, ms=4, label=r"true $\|\exp(M) - \sum_{k\leq i} M^k/k!\,\|_2$")
    _finish(right, "degree $i$ of the series", "What is left out")
    if mark is not None:
        for axis in (left, right):
            axis.axvline(mark, color="0.6", lw=0.8, ls=":")
    return figure


def _finish(axis: Axes, across: str, title: str, *, columns: int = 1) -> None:
    axis.set_yscale("log")
    axis.set_xlabel(across)
    axis.set_title(title, fontsize=11)
    axis.grid(visible=True, color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(framealpha=1, edgecolor="none", fontsize=9, ncols=columns, loc="lower left")


def _single_channel(kernel: Tensor, x: Tensor) -> ConvMap:
    if kernel.ndim != 4 or tuple(kernel.shape[:2]) != (1, 1) or x.ndim != 3 or len(x) != 1:
        raise ShapeError(
            f"These pictures are of one channel: a kernel (1, 1, kh, kw) and an image (1, h, w), got shapes "
            f"{tuple(kernel.shape)} and {tuple(x.shape)}."
        )
    return ConvMap(kernel.detach())


def _vector(title: str, x: Tensor) -> Panel:
    return Panel(title, x.reshape(-1, 1), scale="x", cell=MATRIX_CELL, block=x.shape[-1])
