"""What the laws do not cover: borders, refusals, memory layout, and bounds under groups, masks and reflection."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify import testing
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.conv import ReflectAdjoint
from likelify.linalg.maps import LinearMap

PADDINGS = ["zeros", "circular", "reflect"]


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def fits(padding, taps, size):
    margins = [tap // 2 + (padding == "reflect") for tap in taps]
    return padding == "zeros" or all(margin <= length for margin, length in zip(margins, size, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    axes=st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 4)), min_size=1, max_size=2),
    padding=st.sampled_from(PADDINGS),
    groups=st.sampled_from([1, 2, 4]),
    rows=st.sampled_from([None, 2]),
    masked=st.booleans(),
    symmetry=st.sampled_from([None, "symmetric"]),
    bound=st.sampled_from(["reshape", "torus"]),
    smooth=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_combination_on_tiny_images(axes, padding, groups, rows, masked, symmetry, bound, smooth, seed):
    taps, size = zip(*axes, strict=True)
    with lk.seeded(seed):
        kernel = normal(*([] if rows is None else [rows]), 4, 4 // groups, *taps)
        mask = torch.rand(4 // groups, *taps) > 0.4 if masked and symmetry is None else None
        x = normal(2, 4, *size)
    conv = lk.ConvMap(
        kernel.abs() if smooth else kernel,
        padding,
        bound,
        groups=groups,
        mask=mask,
        symmetry=None if padding == "reflect" else symmetry,
        own_rows=rows is not None,
    )
    if not fits(padding, taps, size):
        with pytest.raises(ShapeError, match="too short"):
            conv.apply(x)
        with pytest.raises(ShapeError, match="too short"):
            conv.trace((4, *size))
        return
    testing.check_linear_map(conv, x)
    testing.check_linear_map(conv.adjoint(), x)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(3, 3, 3), (4, 3, 5)])
def test_every_tap_reads_what_the_padded_image_shows_in_three_dimensions(padding, size):
    kernel, x = normal(2, 2, 3, 5, 3), normal(1, 2, *size)
    mode = "constant" if padding == "zeros" else padding
    padded = torch.nn.functional.pad(x, (1, 1, 2, 2, 1, 1), mode=mode)
    expected = torch.zeros_like(x)
    for i, j, k in torch.cartesian_prod(torch.arange(3), torch.arange(5), torch.arange(3)).tolist():
        window = padded[:, :, i : i + size[0], j : j + size[1], k : k + size[2]]
        expected += torch.einsum("oi,bidhw->bodhw", kernel[:, :, i, j, k], window)
    assert torch.allclose(lk.ConvMap(kernel, padding).apply(x), expected)


def test_the_trace_counts_taps_that_padding_brings_back_to_their_own_pixel():
    one = torch.ones(1, 1, 3, dtype=torch.float64)
    # Circular on one pixel: all three taps. Reflect on two or more: no tap but the centre; with five taps both ends.
    assert float(lk.ConvMap(one, "circular").trace((1, 1))) == 3
    assert float(lk.ConvMap(one, "reflect").trace((1, 4))) == 4
    assert float(lk.ConvMap(torch.ones(1, 1, 5).double(), "reflect").trace((1, 4))) == 6


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_trace_is_differentiable(padding):
    kernel = normal(2, 2, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: lk.ConvMap(k, padding).trace((2, 3, 3)), kernel)


@pytest.mark.parametrize("bound", ["reshape", "torus"])
def test_the_bound_of_a_reflecting_map_is_needed_and_holds(bound):
    # A constant image makes every pixel of the mirror image add up: the bound without the mirrored pixels is too low.
    kernel = torch.ones(1, 1, 5, dtype=torch.float64)
    shape = (1, 5)
    conv = lk.ConvMap(kernel, "reflect", bound)
    true = float(torch.linalg.matrix_norm(conv.materialize(shape), 2))
    assert float(lk.ConvMap(kernel, "circular", bound).norm_bound(shape)) < true <= float(conv.norm_bound(shape))


def test_the_bound_of_a_grouped_map_is_that_of_its_largest_group():
    kernel = normal(4, 2, 3, 3)
    groups = [float(lk.ConvMap(part).norm_bound((2, 5, 5))) for part in kernel.split(2)]
    assert float(lk.ConvMap(kernel, groups=2).norm_bound((4, 5, 5))) == pytest.approx(max(groups))
    assert groups[0] != pytest.approx(groups[1])


def test_rows_with_their_own_kernel_are_bounded_and_mapped_by_it():
    kernel, x = normal(3, 4, 2, 3, 3), normal(3, 4, 4, 5)
    own = lk.ConvMap(kernel, groups=2, own_rows=True)
    alone = [lk.ConvMap(one, groups=2) for one in kernel]
    assert own.rows == 3
    assert torch.allclose(own.apply(x), torch.cat([one.apply(row[None]) for one, row in zip(alone, x, strict=True)]))
    for name in ("norm_bound", "growth_bound", "frobenius_bound", "trace"):
        numbers = torch.stack([getattr(one, name)((4, 4, 5)) for one in alone])
        assert torch.allclose(getattr(own, name)((4, 4, 5)), numbers)


def test_a_declared_norm_is_used_and_looked_at_nowhere():
    conv = lk.ConvMap(torch.full((2, 2, 3, 3), torch.nan), norm=0.9)
    assert conv.norm_bound((2, 4, 4)) == conv.growth_bound((2, 4, 4)) == conv.adjoint().norm_bound((2, 4, 4)) == 0.9
    assert conv.frobenius_bound((2, 4, 4)) == pytest.approx(0.9 * 32**0.5)
    assert conv.centered((2, 4, 4)) == (0.0, conv)


def test_centering_lowers_the_norm_and_leaves_a_masked_centre_alone():
    kernel = normal(3, 3, 3, 3) + 4 * torch.nn.functional.pad(torch.eye(3)[:, :, None, None], (1, 1, 1, 1)).double()
    shift, rest = lk.ConvMap(kernel).centered((3, 5, 5))
    assert float(shift) == pytest.approx(float(lk.ConvMap(kernel).trace((3, 5, 5))) / 75)
    assert float(rest.norm_bound((3, 5, 5))) < float(lk.ConvMap(kernel).norm_bound((3, 5, 5)))
    mask = torch.ones(3, 3)
    mask[1, 1:] = mask[2] = 0
    masked = lk.ConvMap(kernel, mask=mask)
    shift, rest = masked.centered((3, 5, 5))
    assert float(shift) == 0.0
    assert torch.equal(rest.effective, masked.effective)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("own_rows", [False, True])
def test_the_pullback_is_differentiable(padding, own_rows):
    kernel = normal(*([2] if own_rows else []), 2, 1, 3)
    conv = lk.ConvMap(kernel, padding, groups=2, own_rows=own_rows)
    u, v = normal(2, 2, 3).requires_grad_(), normal(2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: conv.pullback(u, v)["kernel"], (u, v))
    assert torch.autograd.gradgradcheck(lambda u, v: conv.pullback(u, v)["kernel"], (u, v))


def test_the_pullback_costs_no_gradient_of_the_input(monkeypatch):
    conv, u, v = lk.ConvMap(normal(2, 2, 3, 3)), normal(3, 2, 4, 4), normal(3, 2, 4, 4)
    expected = LinearMap.pullback(conv, u, v)["kernel"]
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert torch.allclose(conv.pullback(u, v)["kernel"], expected)


@pytest.mark.parametrize(("channels", "groups", "last"), [(4, 1, True), (64, 1, False), (64, 64, True)])
def test_images_are_laid_out_for_speed_and_stay_so(channels, groups, last):
    layout = torch.channels_last if last else torch.contiguous_format
    for padding in PADDINGS:
        conv = lk.ConvMap(torch.randn(channels, channels // groups, 3, 3), padding, groups=groups)
        x = conv.arrange(torch.randn(2, channels, 4, 5))
        assert x.is_contiguous(memory_format=layout)
        assert conv.apply(x).is_contiguous(memory_format=layout)
    line = torch.randn(2, 5, 4).mT
    assert lk.ConvMap(torch.randn(4, 4, 3)).arrange(line) is line


def test_an_ensemble_of_kernels_goes_through_vmap():
    kernels, x = normal(3, 2, 2, 3, 3), normal(2, 2, 4, 4)
    for padding in PADDINGS:
        for symmetry in [None] if padding == "reflect" else [None, "skew"]:
            template = lk.ConvMap(kernels[0], padding, symmetry=symmetry)
            found = torch.vmap(lambda kernel, template=template: replace(template, kernel=kernel).apply(x))(kernels)
            expected = [replace(template, kernel=kernel).apply(x) for kernel in kernels]
            assert torch.allclose(found, torch.stack(expected))


def test_the_adjoint_of_a_reflecting_map_is_its_own_kind():
    conv = lk.ConvMap(normal(2, 2, 3), "reflect")
    assert isinstance(conv.adjoint(), ReflectAdjoint)
    assert conv.adjoint().adjoint() is conv


def test_a_mask_is_kept_as_booleans_and_keeps_its_place_in_the_adjoint():
    mask = torch.tensor([[[1.0, 1.0, 0.0]]])
    conv = lk.ConvMap(normal(2, 2, 3), mask=mask)
    assert conv.mask is not None
    assert conv.mask.dtype == torch.bool
    assert bool((conv.effective[:, :, 2] == 0).all())
    adjoint = conv.adjoint()
    assert bool((adjoint.effective[:, :, 0] == 0).all())
    assert torch.equal(adjoint.adjoint().kernel, conv.kernel)


@pytest.mark.parametrize(
    ("error", "match", "build"),
    [
        (ConfigError, "no padding", lambda: lk.ConvMap(torch.zeros(2, 2, 3), "same")),
        (ConfigError, "no norm bound", lambda: lk.ConvMap(torch.zeros(2, 2, 3), bound="power")),
        (ConfigError, "no symmetry", lambda: lk.ConvMap(torch.zeros(2, 2, 3), symmetry="even")),
        (ConfigError, "folds the border", lambda: lk.ConvMap(torch.zeros(2, 2, 3), "reflect", symmetry="skew")),
        (ShapeError, r"kernel \(c, c, \*taps\)", lambda: lk.ConvMap(torch.zeros(2, 3, 3, 3))),
        (ShapeError, r"kernel \(c, c / 2, \*taps\)", lambda: lk.ConvMap(torch.zeros(4, 4, 3, 3), groups=2)),
        (ShapeError, r"kernel \(rows, c, c, \*taps\)", lambda: lk.ConvMap(torch.zeros(2, 2, 3), own_rows=True)),
        (ShapeError, "axes of taps", lambda: lk.ConvMap(torch.zeros(2, 2))),
        (ShapeError, "no centre", lambda: lk.ConvMap(torch.zeros(2, 2, 3, 3, 2))),
        (ShapeError, "mask", lambda: lk.ConvMap(torch.zeros(2, 2, 3), mask=torch.ones(4))),
        (
            ConfigError,
            "only masked if the mask is symmetric",
            lambda: lk.ConvMap(torch.zeros(2, 2, 3), mask=torch.tensor([1, 1, 0]), symmetry="skew"),
        ),
        (ConfigError, "positive and finite", lambda: lk.ConvMap(torch.zeros(2, 2, 3), norm=0.0)),
        (ShapeError, "needs an input", lambda: lk.ConvMap(torch.zeros(2, 2, 3)).apply(torch.zeros(1, 3, 4))),
        (ShapeError, "needs an input", lambda: lk.ConvMap(torch.zeros(2, 2, 3)).apply(torch.zeros(1, 2, 4, 4))),
        (
            ShapeError,
            r"input \(5, 2, w\)",
            lambda: lk.ConvMap(torch.zeros(5, 2, 2, 3), own_rows=True).apply(torch.zeros(4, 2, 6)),
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(error, match, build):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.parametrize("padding", PADDINGS)
def test_maps_compile_without_a_break(padding):
    def everything(kernel, x):
        conv = lk.ConvMap(kernel, padding, groups=2)
        values = conv.apply(conv.arrange(x)), conv.adjoint().apply(x), conv.pullback(x, x)["kernel"]
        return *values, conv.trace((4, 3, 5)), conv.centered((4, 3, 5))[0]

    kernel, x = normal(4, 2, 3, 3), normal(2, 4, 3, 5)
    compiled = torch.compile(everything, fullgraph=True, backend="eager")(kernel, x)
    for found, expected in zip(compiled, everything(kernel, x), strict=True):
        assert torch.allclose(found, expected)
