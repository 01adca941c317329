"""The machinery behind the tutorials, on few steps; and, slowly, what they claim."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

import likelify as lk
from benchmarks import tutorial_autoencoder as autoencoders
from benchmarks import tutorial_outliers as outliers
from benchmarks import tutorial_table as tables
from likelify.data import open_source, standardized


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


@pytest.fixture
def classifier(digits):
    net = outliers.network()
    outliers.train(net, digits, steps=150)
    return net


def placements(known, foreign):
    return outliers.Placements.of(torch.tensor(known), torch.tensor(foreign))


def test_placements_give_the_area_under_the_curve():
    known, foreign = torch.randn(40).round(decimals=1), torch.randn(60).round(decimals=1) - 0.5
    truth = torch.cat([torch.ones(40), torch.zeros(60)])
    found = outliers.Placements.of(known, foreign)
    area = roc_auc_score(truth, torch.cat([known, foreign]))
    assert float(found.known.mean()) == pytest.approx(area)
    assert float(found.foreign.mean()) == pytest.approx(area)


def test_intervals_cover_the_area_of_two_normal_distributions():
    truth = 0.5 * (1 + math.erf(1 / 2))  # P(a > b) for a ~ N(1, 1), b ~ N(0, 1)
    areas = [
        outliers.Area.of([outliers.Placements.of(torch.randn(80) + 1, torch.randn(120))], paired=False)
        for _ in range(300)
    ]
    covered = sum(abs(area.value - truth) <= area.half_width for area in areas) / len(areas)
    assert 0.91 < covered < 0.985


def test_intervals_know_that_foreign_images_are_made_of_known_ones():
    """Where score and foreign score of an image move together, an area is known better than of separate images."""
    inner = torch.randn(400)
    known, foreign = inner + 0.5, inner + 0.2 * torch.randn(400)
    separate = outliers.Area.of([outliers.Placements.of(known, foreign)], paired=False)
    together = outliers.Area.of([outliers.Placements.of(known, foreign)], paired=True)
    assert together.value == separate.value
    assert together.half_width < 0.8 * separate.half_width


def test_seeds_that_disagree_widen_the_interval():
    even = [placements([1.0, 2.0, 3.0], [0.0, 1.5]), placements([1.0, 2.0, 3.0], [0.0, 1.5])]
    uneven = [even[0], placements([1.0, 2.0, 3.0], [2.5, 3.5])]
    assert outliers.Area.of(uneven, paired=False).half_width > outliers.Area.of(even, paired=False).half_width


def test_keeping_the_weights_keeps_the_classifier(digits, classifier):
    flow = outliers.flowified(classifier, keep=True)
    outliers.tune(flow, digits, seconds=1.0, seed=0)
    x = digits.read_all("test").x
    with torch.no_grad():
        expected = classifier(outliers.scaled(x))
        torch.testing.assert_close(outliers.mean_logits(flow)(outliers.scaled(x)), expected, atol=1e-4, rtol=1e-4)
    score = outliers.log_likelihood(flow)
    assert score(x).mean() > score(digits.read_all("test").x.rot90(1, (2, 3))).mean()


def test_tuning_everything_changes_the_classifier(digits, classifier):
    flow = outliers.flowified(classifier, keep=False)
    outliers.tune(flow, digits, seconds=0.5, seed=0)
    x = outliers.scaled(digits.read_all("test").x)
    with torch.no_grad():
        assert not torch.allclose(outliers.mean_logits(flow)(x), classifier(x), atol=1e-2)


def test_confidence_orders_images_as_the_largest_probability_does(digits, classifier):
    x = digits.read_all("test").x[:50]
    with torch.no_grad():
        largest = classifier(outliers.scaled(x)).double().softmax(1).max(1).values
    torch.testing.assert_close(outliers.max_softmax(classifier)(x).sigmoid(), largest)


def test_the_density_of_logits_is_that_of_its_flow(digits, classifier):
    flow, x = outliers.flowified(classifier, keep=True), digits.read_all("test").x[:20]
    flow.initialize(digits.read_all("train").x)
    logits = outliers.mean_logits(flow)(outliers.scaled(x)).detach()
    head = flow.transform[1]  # pyright: ignore[reportIndexIssue]
    expected = lk.Flow(flow.base, head).log_prob(logits).detach().double()
    torch.testing.assert_close(outliers.logit_density(flow)(x), expected)


def test_spoilt_digits_have_the_pixels_of_digits(digits):
    x, sets = digits.read_all("test").x, outliers.foreign_sets(digits)
    for name in ("upside down", "mirrored", "turned by 90 degrees", "pixels shuffled"):
        assert torch.equal(sets[name].images.flatten(1).sort(1).values, x.flatten(1).sort(1).values), name
        assert not torch.equal(sets[name].images, x)
    assert torch.equal(sets["inverted"].images, 16 - x)


@pytest.mark.parametrize("name", autoencoders.ROWS)
def test_autoencoders_give_images(name, digits):
    row = autoencoders.ROWS[name]
    model = autoencoders.Autoencoder(row.encoder())
    autoencoders.train(model, digits, steps=20)
    flow = autoencoders.flowified(model if row.whole else model.encoder, keep=row.keep)
    flow.initialize(digits.read_all("train").x)
    assert flow.transform.out_shape((1, 8, 8)) == ((1, 8, 8) if row.whole else (8,))
    for images in (flow.sample((30,)), autoencoders.mean_samples(flow, 30)):
        assert images.shape == (30, 1, 8, 8)
        assert bool(((images >= 0) & (images <= 16)).all())
    assert torch.equal(autoencoders.in_levels(autoencoders.scaled(torch.arange(17))), torch.arange(17).float())


def test_roughness_is_that_of_neighbours():
    images = torch.zeros(1, 1, 2, 2)
    images[..., 1] = 3
    assert autoencoders.roughness(images) == pytest.approx((0 + 9) / 2)


@pytest.mark.parametrize("name", [tables.PERCEPTRON, tables.ZOO])
def test_flows_of_tables_are_exact_and_fit(name):
    source = standardized(open_source("diabetes"))
    flow = tables.flow_of(name, 10)
    assert flow.likelihood == "exact"
    with torch.no_grad():
        before = flow.log_prob(source.read_all("test").x.float()).mean()
    assert tables.fitted(name, source, seed=0, steps=30).mean() > before + 1


def test_the_mixture_is_chosen_on_the_validation_split():
    source = open_source("diabetes")
    found = tables.best_mixture(source, 0, quick=True)
    assert found.test.shape == (source.size("test"),)
    assert found.test.mean() > -20
    assert "full" in found.description


def test_a_difference_is_paired_over_rows():
    rows = torch.randn(50, dtype=torch.float64)
    mean, error, median, won = tables._difference("a", [rows + 1], [rows])
    assert (mean.value, median.value, won.value) == pytest.approx((1, 1, 1))
    assert error.value == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_upside_down_digits_are_told_better_than_by_the_rivals(seed, digits):
    scores, facts, _ = outliers.detectors(digits, seed, seconds=8.0)
    names = (outliers.KEPT, outliers.GLOW, outliers.MAX_SOFTMAX)
    known, foreign = digits.read_all("test").x, outliers.foreign_sets(digits)[outliers.WINNING]
    area = {
        name: outliers.Area.of(
            [outliers.Placements.of(scores[name](known), scores[name](foreign.images))], paired=True
        ).value
        for name in names
    }
    assert area[outliers.KEPT] > 0.03 + max(area[outliers.GLOW], area[outliers.MAX_SOFTMAX])
    assert facts[f"accuracy, {outliers.KEPT}"] == pytest.approx(facts["accuracy of the classifier"], abs=0.003)
    assert facts["accuracy of the classifier"] > 0.95


@pytest.mark.slow
def test_an_autoencoder_becomes_a_generative_model(digits):
    figures, flows, _ = autoencoders.run(digits, 0, seconds=8.0, steps=800)
    for name, flow in flows.items():
        assert figures[f"digits above noise, {name}"] > 20, name
        assert figures[f"bits/dim of 16 draws, {name}"] < figures[f"bits/dim, {name}"], name
        samples = flow.sample((200,))
        assert bool(((samples >= 0) & (samples <= 16) & (samples == samples.floor())).all())
    for name in ("encoder, weights kept", "encoder, all tuned"):
        assert figures[f"error, {name}"] < 0.6 * figures["error, mean digit"]
    assert figures["roughness of samples, encoder, all tuned"] < 0.8 * figures["roughness, noise"]


@pytest.mark.slow
def test_the_perceptron_is_no_worse_than_the_mixture_on_breast_cancer():
    entries = {entry.name: entry.value for entry in tables.measure("breast-cancer", 1, quick=False)}
    name = f"breast-cancer, {tables.PERCEPTRON} minus {tables.MIXTURE}"
    assert entries[name] > -entries[f"{name}, standard error"]
