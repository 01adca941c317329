"""The statistics against calculations by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from likelify.reproduce.statistics import common_time, paired_difference, value_at, value_between


def test_paired_difference_by_hand():
    # Differences 0.1, 0.2, 0.3: mean 0.2, std 0.1, error 0.1 / sqrt(3), t(0.975, 2) = 4.302653.
    paired = paired_difference({0: 1.1, 1: 5.2, 2: 9.3}, {0: 1.0, 1: 5.0, 2: 9.0})
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert paired.difference == pytest.approx(0.2)
    assert (paired.low, paired.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    assert (paired.count, paired.error) == (3, pytest.approx(0.1 / math.sqrt(3)))


def test_paired_difference_agrees_with_scipy():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 7))
    paired = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)), confidence=0.9)
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.9)
    assert (paired.low, paired.high) == pytest.approx((interval.low, interval.high))


def test_only_common_seeds_are_paired():
    paired = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {1: 1.0, 0: 1.0, 3: -50.0})
    assert paired.count == 2
    assert paired.difference == pytest.approx(0.5)
    alone = paired_difference({0: 1.0}, {0: 0.25})
    assert alone.difference == 0.75
    assert math.isnan(alone.low)
    nothing = paired_difference({0: 1.0}, {1: 1.0})
    assert nothing.count == 0
    assert math.isnan(nothing.difference)


CURVE = [(1.0, 5.0), (10.0, 3.0), (20.0, 4.0), (30.0, 2.0)]


@pytest.mark.parametrize(
    ("seconds", "value"), [(1.0, 5.0), (9.99, 5.0), (10.0, 3.0), (25.0, 3.0), (30.0, 2.0), (99.0, 2.0)]
)
def test_curves_are_read_off_without_interpolation(seconds, value):
    assert value_at(CURVE, seconds) == value


def test_before_the_first_point_there_is_nothing():
    assert math.isnan(value_at(CURVE, 0.5))
    assert math.isnan(value_at([], 1.0))


def test_common_time_is_that_of_the_shortest_fit_but_loses_no_last_point():
    short, long = [(0.0, 1.0), (50.0, 1.0)], [(0.0, 1.0), (100.0, 1.0)]
    assert common_time([long, short]) == 50.0
    hair = [(0.0, 1.0), (50.9, 1.0)]
    assert common_time([long, short, hair]) == 50.9
    assert common_time([long, short, hair], slack=0.01) == 50.0
    assert math.isnan(common_time([]))
    assert math.isnan(common_time([[]]))


@pytest.mark.parametrize(("place", "value"), [(1.0, 5.0), (5.5, 4.0), (10.0, 3.0), (25.0, 3.0), (30.0, 2.0)])
def test_between_two_points_curves_are_straight(place, value):
    assert value_between(CURVE, place) == pytest.approx(value)


@pytest.mark.parametrize("place", [0.5, 30.1])
def test_outside_of_a_curve_there_is_nothing(place):
    assert math.isnan(value_between(CURVE, place))
    assert math.isnan(value_between([], place))
