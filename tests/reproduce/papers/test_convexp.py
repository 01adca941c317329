"""Tables 1 to 3 of the first paper: equal parameters, shared fits, and sentences that say what the figures say."""

import math

import pytest

from likelify.data import Facts
from likelify.fitting.figures import Course, Figure, Point, Score, Unit
from likelify.reproduce.costs import Cost, CostResult
from likelify.reproduce.evidence import Evidence
from likelify.reproduce.papers import convexp, convexp_words
from likelify.reproduce.results import CellResult
from likelify.zoo import config_from_dict

SHAPES = {"sample-photos": (3, 32, 32), "Fashion-MNIST": (1, 28, 28)}


@pytest.mark.slow
@pytest.mark.parametrize("data", SHAPES)
def test_rows_of_table_1_have_equal_parameters(data):
    counts = {}
    for method in convexp.table_1("cpu").methods:
        config = config_from_dict(method.model | method.changes[data] | {"event_shape": SHAPES[data]})
        counts[method.title] = sum(parameter.numel() for parameter in config.build().parameters())
    for title, count in counts.items():
        assert count == pytest.approx(counts["1x1"], rel=0.02), title


def test_the_full_model_of_table_3_is_fitted_once():
    full = convexp.table_3("cpu").cells()[0]
    (same,) = (c for c in convexp.table_2("cpu").cells() if c.name == "sylvester-variational.sample-photos.0")
    assert (full.model, full.fit, full.data, full.seed) == (same.model, same.fit, same.data, same.seed)


def test_rows_of_table_2_are_compared_within_their_noise():
    table = convexp.table_2("cpu")
    titles = {method.title for method in table.methods}
    for method in table.methods:
        assert table.against(method) in titles
        assert table.against(method).split(", ")[-1] == method.title.split(", ")[-1]
    assert table.compared == "that of the same group"
    assert convexp.table_1("cpu").compared == "1x1"


def test_at_paper_scale_fits_are_those_of_the_presets():
    cells = convexp.table_1("paper").cells()
    facts = Facts(
        name="", family="", kind="image", fingerprint="", event_shape=(3, 32, 32), levels=256, sizes={"train": 40_000}
    )
    fit = cells[0].settle(facts)["fit"]
    assert (fit["steps"], fit["batch_size"], fit["optimizer"], fit["max_time"]) == (156_000, 256, "adamax", None)
    assert cells[0].settle(facts)["model"]["dequantization"] == "variational"
    assert cells[0].device == "auto"
    assert (cells[0].measuring.iw_samples, cells[0].measuring.iw_items) == (1000, 500)


def result(method, seed, bits, steps=100, seconds=50.0):
    """A finished cell whose validation falls on a straight line to its test figure."""
    line = [(part, bits + 1 - part) for part in (0.0, 0.5, 1.0)]
    points = [
        Point(
            step=int(part * steps),
            seconds=part * seconds,
            train_bits=None,
            train_nats=None,
            validation_bits=value,
            validation_nats=-value,
        )
        for part, value in line
    ]
    figure = Figure(mean=bits, standard_error=0.0, count=9)
    facts = Facts(name="x", family="x", kind="image", fingerprint="", event_shape=(1, 2, 2), levels=2, sizes={})
    return CellResult(
        method=method,
        seed=seed,
        settings={"model": {"model": "glow"}},
        facts=facts,
        parameters=1,
        likelihood="bound",
        course=Course(reason="finished", steps=steps, best_step=steps, seconds=seconds, points=tuple(points)),
        measuring_seconds=1.0,
        elbo=Score(bits=figure, nats=figure, samples=1),
        versions={"code": "a"},
        machine={},
        finished="",
    )


def costs(percents):
    measured = {
        title: Cost(
            step_seconds=1, sample_seconds=1, step_percent=100, sample_percent=p, kept_bytes=k, parameters=1, steps=5
        )
        for title, (p, k) in percents.items()
    }
    facts = result("x", 0, 1.0).facts
    return CostResult(
        settings={},
        facts=facts,
        costs=measured,
        rounds=1,
        batch_size=1,
        clock="processor",
        versions={},
        machine={},
        finished="",
    )


NOISE = (0.0, 0.01, -0.01)


def rows_of(means):
    return {
        title: [result(title, seed, mean + noise * (place + 1)) for seed, noise in enumerate(NOISE)]
        for place, (title, mean) in enumerate(means.items())
    }


@pytest.mark.parametrize(
    ("exponential", "sampling", "said"),
    [
        (3.0, 130.0, "the likelihood decides: at equal steps (100) Emerging is ahead"),
        (2.0, 130.0, "the likelihood decides: at equal steps (100) the convolution exponential is ahead"),
        (2.505, 130.0, "the two cannot be told apart"),
        (
            2.0,
            900.0,
            "it takes 900 %, the convolution exponential 120 %: more than twice that of 1x1 for Emerging",
        ),
        (2.0, None, "costs are not measured yet"),
    ],
)
def test_what_is_said_of_emerging_follows_from_the_figures(exponential, sampling, said):
    rows = rows_of({"Emerging": 2.5, "convolution exponential": exponential})
    percents = sampling and {"Emerging": (sampling, 1), "convolution exponential": (120.0, 1)}
    found = Evidence(Unit.of("image"), {"photos": rows}, {"photos": costs(percents)} if percents else {})
    text = " ".join(convexp_words.discuss_mixing(found))
    assert said in text


@pytest.mark.parametrize(("seeds", "said"), [(1, "one pair says nothing"), (0, "nothing is measured yet")])
def test_few_cells_say_nothing_of_emerging(seeds, said):
    rows = rows_of({"Emerging": 2.5, "convolution exponential": 2.0})
    rows["Emerging"] = rows["Emerging"][:seeds]
    measured = {"photos": costs({"Emerging": (130.0, 1), "convolution exponential": (120.0, 1)})}
    text = " ".join(convexp_words.discuss_mixing(Evidence(Unit.of("image"), {"photos": rows}, measured)))
    assert said in text
    assert "cannot be told apart" not in text


def test_orders_and_verdicts():
    rows = rows_of({"a": 2.0, "b": 3.0}) | {"c": [result("c", 0, 1.0, steps=40)]}
    found = Evidence(Unit.of("image"), {"photos": rows}, {})
    # After 40 steps, the most that all have made, the others are 0.6 above their ends.
    assert found.steps("photos") == 40
    assert found.order(["a", "b", "c"], "photos", "steps") == "c (1.000), a (2.600) and b (3.600)"
    assert found.order(["b", "a"], "photos") == "a (2.000) and b (3.000)"
    verdict = found.verdict("b", "a", "photos")
    assert verdict.startswith("on the test split b is worse than a (+1.000 [+0.9")
    assert "one pair only" in found.verdict("c", "a", "photos", "time")
    assert "not measured yet" in found.verdict("d", "a", "photos")
    assert math.isnan(found.steps("elsewhere"))


def test_memory_is_compared_with_the_paper_s_claim():
    titles = [f"{title}, {noise}" for noise in convexp.NOISES for title in convexp.STACKS]
    rows = {title: [result(title, 0, 3.0)] for title in titles}
    kept = {"residual": 100, "residual (equal memory)": 50, "Sylvester": 200}
    percents = {title: (1.0, kept.get(title.rpartition(", ")[0], 1)) for title in titles}
    found = Evidence(Unit.of("image"), {"photos": rows}, {"photos": costs(percents)})
    text = " ".join(convexp_words.discuss_residual(found))
    assert "in multiples of the Sylvester model's: residual 0.50, residual (equal memory) 0.25." in text
