"""Pictures of exponentials show what the engine computes: matrices, terms, bounds."""

import io
import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from likelify.errors import ShapeError
from likelify.linalg import ConvMap, Dense, exp_action
from likelify.plots import (
    convolution_as_matrix,
    exponential_as_matrix,
    exponential_bounds,
    exponential_terms,
    png_of,
    series_decay,
    svg_of,
)


@pytest.fixture
def kernel():
    """As a layer has it, with a gradient."""
    values = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    return values.requires_grad_()


@pytest.fixture
def image():
    return torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def shown(figure):
    """Return for the title of each panel the values that it shows."""
    return {axis.get_title(): np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images}


def test_both_sides_of_a_convolution_are_the_same_numbers(kernel, image):
    panels = shown(convolution_as_matrix(kernel, image))
    product = panels["$M$"] @ panels[r"$\vec{x}$"]
    assert np.allclose(product, panels[r"$M\vec{x}$"], atol=1e-14)
    assert np.allclose(product.reshape(4, 5), panels[r"$m \star x$"], atol=1e-14)
    assert np.array_equal(panels["$m$"], kernel[0, 0].detach())
    assert np.array_equal(panels["$x$"], image[0])


def test_the_matrix_of_the_exponential_is_what_the_engine_applies(kernel, image):
    figure = exponential_as_matrix(kernel, (4, 5))
    matrix, forward, back = shown(figure).values()
    assert np.allclose(forward @ back, np.eye(20), atol=1e-12)
    z = exp_action(ConvMap(kernel.detach()), image[None]).value
    assert np.allclose(forward @ image.flatten().numpy(), z.flatten(), atol=1e-10)
    note = next(axis.get_xlabel() for axis in figure.axes if axis.get_title() == r"$\exp(M)$")
    assert float(note.strip("$").split("=")[-1]) == pytest.approx(math.exp(np.trace(matrix)), rel=5e-3)


def test_terms_sum_to_the_exponential_and_back(kernel, image):
    figure = exponential_terms(kernel, image, terms=14)
    panels = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    *forward, z = panels[:16]
    *reverse, x = panels[16:]
    assert np.allclose(np.sum(forward, 0), z, atol=1e-9)
    assert np.allclose(np.sum([(-1) ** k * term for k, term in enumerate(reverse)], 0), x, atol=1e-9)
    assert np.allclose(x, image[0], atol=1e-10)
    signs = [text.get_text() for text in figure.texts]
    assert signs.count("$-$") == 7
    notes = [float(axis.get_xlabel()) for axis in figure.axes if axis.get_xlabel()]
    assert notes[1] == pytest.approx(float(np.linalg.norm(forward[1]) / image.norm()), rel=0.05)


def test_bounds_hold_and_the_rest_is_what_is_left_out(kernel):
    map_, shape = ConvMap(kernel.detach(), bound="torus"), (1, 4, 5)
    decay = series_decay(map_, shape, degree=6)
    matrix = map_.materialize(shape)
    total = torch.matrix_exp(matrix)
    for degree in range(7):
        total = total - torch.linalg.matrix_power(matrix, degree) / math.factorial(degree)
        assert decay.rest[degree] == pytest.approx(float(torch.linalg.matrix_norm(total, 2)), rel=1e-5)
    assert (decay.rest <= decay.tail).all()
    for name, sizes in decay.sizes.items():
        assert (decay.terms[name] <= sizes * (1 + 1e-12)).all()
    assert decay.sizes["1"][1] == pytest.approx(float(matrix.abs().sum(0).max()))
    assert decay.sizes[r"\infty"][1] == pytest.approx(float(matrix.abs().sum(1).max()))
    lines = exponential_bounds(decay).axes[1].lines
    assert np.array_equal(lines[0].get_ydata(), decay.tail)


def test_terms_that_have_no_digits_left_still_have_their_size():
    decay = series_decay(Dense(torch.diag(torch.tensor([0.5, 0.25], dtype=torch.float64))), (2,), degree=20)
    exact = sum(0.5**k / math.factorial(k) for k in range(21, 60))
    assert decay.rest[20] == pytest.approx(exact, rel=1e-12)


def test_several_channels_and_several_maps_are_refused(kernel):
    with pytest.raises(ShapeError, match="holds 2 maps, one for each row"):
        series_decay(Dense(torch.zeros(2, 3, 3)), (3,))
    with pytest.raises(ShapeError, match=r"of one channel.* got shapes \(1, 1, 3, 3\) and \(2, 4, 5\)"):
        convolution_as_matrix(kernel, torch.zeros(2, 4, 5))
    with pytest.raises(ShapeError, match=r"got shapes \(2, 2, 3, 3\) and \(1, 4, 5\)"):
        exponential_as_matrix(torch.zeros(2, 2, 3, 3), (4, 5))


def test_files_are_the_same_whenever_they_are_written(kernel):
    first, second = (exponential_as_matrix(kernel, (4, 5)) for _ in range(2))
    assert svg_of(first) == svg_of(second)
    assert png_of(first) == png_of(second)
    assert ElementTree.fromstring(svg_of(first)).tag.endswith("svg")
    with Image.open(io.BytesIO(png_of(first, dpi=40))) as picture:
        assert np.asarray(picture).std() > 1


def test_terms_and_matrices_of_extreme_maps_are_drawn():
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[..., 1, 1] = 12.0
    assert png_of(exponential_as_matrix(kernel, (8, 8)))
    assert png_of(exponential_terms(0.01 * kernel, torch.zeros(1, 8, 8), terms=11))
