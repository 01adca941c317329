import math

import numpy as np
import pytest

from likelify.fitting.figures import Course, Figure, Point, Unit


def test_figures_have_standard_errors():
    assert Figure.of([1.0]).standard_error is None
    figure = Figure.of([1.0, 2.0, 3.0, 4.0])
    assert (figure.mean, figure.count) == (2.5, 4)
    assert figure.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)


def test_units():
    bits, nats = Unit.of("image"), Unit.of("table")
    assert (bits.show(1.5, -9.0), nats.show(1.5, -9.0)) == ("1.500 bits/dim", "-9.000 nats")
    assert (bits.higher_is_better, nats.higher_is_better) == (False, True)
    point = Point(step=1, seconds=2, train_bits=3, train_nats=-3, validation_bits=4, validation_nats=-4, lr=5)
    course = Course(reason="finished", steps=1, best_step=1, seconds=2, points=(point,))
    assert course.rows(bits) == [{"step": 1, "seconds": 2, "train_bits": 3, "validation_bits": 4, "lr": 5}]
    assert course.rows(nats) == [{"step": 1, "seconds": 2, "train_nats": -3, "validation_nats": -4, "lr": 5}]
    assert Course.model_validate_json(course.model_dump_json()) == course
    assert Course().best is None


def test_a_weighted_figure_is_that_of_rows_as_often_as_they_weigh():
    values, times = np.array([1.0, 4.0, 2.0, 9.0]), np.array([3, 1, 2, 0])
    found = Figure.of(values, times)
    assert found.mean == pytest.approx(np.repeat(values, times).mean())
    assert found.count == 3
    assert Figure.of(values, np.full(4, 2.5)) == Figure.of(values)


def test_the_error_of_a_weighted_figure_is_that_of_the_mean():
    random = np.random.default_rng(0)
    weights = random.uniform(0, 3, 400)
    drawn = random.normal(5, 2, (3000, 400))
    means = (drawn * weights).sum(1) / weights.sum()
    errors = [Figure.of(values, weights).standard_error for values in drawn[:200]]
    assert np.mean(errors) == pytest.approx(means.std(), rel=0.05)
