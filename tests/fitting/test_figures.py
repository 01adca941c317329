import math

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
