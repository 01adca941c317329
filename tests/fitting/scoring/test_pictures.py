"""The scale of the colours that lie on pictures."""

import numpy as np
import pytest

from likelify.fitting.report.sections.extremes import _Surprises
from likelify.fitting.scoring.pictures import _highest
from likelify.fitting.scoring.surprise import scale_end


def test_few_pixels_are_beyond_the_scale_of_surprises_and_none_beyond_that_of_gains():
    heat = np.arange(1000.0).reshape(1, 20, 50)
    assert _highest(heat, "replaced") == 999
    assert _highest(heat, "surprise") == pytest.approx(997, abs=0.1)
    assert _highest(np.zeros((1, 2, 2)), "surprise") > 0


@pytest.mark.parametrize("kind", ["replaced", "surprise"])
def test_impossible_pixels_leave_the_scale_as_it_is(kind):
    heat = np.random.default_rng(0).uniform(size=(4, 8, 8))
    with_impossible = np.concatenate([heat, np.full((1, 8, 8), np.inf)])
    assert _highest(with_impossible, kind) == _highest(heat, kind)
    assert _highest(np.full((1, 2, 2), np.inf), kind) > 0


def test_the_report_shows_impossible_pixels_in_the_lightest_colour():
    maps = np.array([[0.0, 1.0], [2.0, np.inf]])
    end = scale_end(maps)
    shown = _Surprises({3: maps}, end).picture(3, "a picture")
    assert shown == _Surprises({3: np.minimum(maps, end)}, end).picture(3, "a picture")
    assert shown != _Surprises({3: np.zeros((2, 2))}, end).picture(3, "a picture")
