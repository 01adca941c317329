"""The protocol and the rivals of the benchmark of outliers, on tables made here."""

import json

import numpy as np
import pyarrow as pa
import pytest
from benchmarks.outliers import CLEAN_TASK, CONTAMINATED, FOREST, OURS, Measured
from benchmarks.table_archives import Table

from benchmarks import outliers


def table(common=90, rare=30):
    generator = np.random.default_rng(0)
    rows = [(f"{value:.3f}", "ab"[number % 2]) for number, value in enumerate(generator.normal(size=common))]
    rows += [(f"{6 + value:.3f}", "b") for value in generator.normal(size=rare)]
    return Table("made", ("number", "word"), tuple(rows), ("common",) * common + ("rare",) * rare)


def test_outliers_are_a_tenth_and_clean_rows_are_not_scored_again():
    found = outliers.tasks(table(), 0)
    clean, mixed = found[CLEAN_TASK], found[CONTAMINATED]
    assert set(clean.train.labels) == {"common"}
    assert len(clean.train.rows) == 54
    assert clean.truth.sum() == mixed.truth.sum() == 10
    assert len(mixed.train.rows) == 100
    assert mixed.train is mixed.scored
    assert not set(clean.train.rows) & set(clean.scored.rows)
    assert all((label == "rare") == odd for label, odd in zip(clean.scored.labels, clean.truth, strict=True))


def test_of_two_named_classes_the_positive_ones_are_the_outliers():
    labels = ("positive",) * 90 + ("negative",) * 30
    made = Table("made", ("number", "word"), table().rows, labels)
    assert set(outliers.tasks(made, 0)[CLEAN_TASK].train.labels) == {"negative"}


def test_rivals_take_words_as_columns_of_their_own():
    train, scored = outliers.numbers(outliers.tasks(table(), 0)[CONTAMINATED])
    assert train.shape == scored.shape == (100, 3)
    assert (train[:, 1:].sum(1) == 1).all()
    assert outliers.frame(table()).schema.types == [pa.float64(), pa.string()]


def test_ecod_adds_the_logarithms_of_the_tails_of_each_column():
    # Skewed to the left, so that the third sum takes the left tails of the first column.
    train = np.array([[0.0, 1.0], [9.0, 2.0], [10.0, 3.0], [11.0, 9.0]])
    scored = np.array([[0.0, 9.0], [10.0, 2.0]])
    left, right = [[1, 4], [3, 2]], [[4, 1], [2, 3]]
    expected = [
        max(sum(-np.log(np.array(tail[row]) / 4)) for tail in (left, right, [[1, 1], [3, 3]])) for row in range(2)
    ]
    np.testing.assert_allclose(outliers.tails(train, scored), expected)


@pytest.mark.parametrize("method", list(outliers.RIVALS))
def test_every_rival_finds_rows_that_lie_apart(method):
    generator = np.random.default_rng(0)
    train, far = generator.normal(size=(200, 2)), np.full((1, 2), 12.0)
    scores = outliers.RIVALS[method](train, np.concatenate([train[:50], far]))
    assert scores.argmax() == 50


def made_of(areas):
    """What was measured of tables of which these are the areas of each method."""
    found = {}
    for number in range(len(areas[OURS])):
        one = {name: {"auroc": values[number], "precision": 0.5, "seconds": 1.0} for name, values in areas.items()}
        found[f"table {number}"] = [{CLEAN_TASK: one, CONTAMINATED: one}]
    return found


def test_places_means_and_intervals_are_over_tables():
    rivals = dict.fromkeys(["LOF", "ECOD", "GaussianMixture"], [0.5, 0.5, 0.5])
    tables = made_of({OURS: [0.9, 0.7, 0.5], FOREST: [0.8, 0.7, 0.6], **rivals})
    figures = {entry.name: entry for entry in outliers.entries(tables)}
    assert figures["clean: likelify, mean AUROC"].value == pytest.approx(0.7)
    # First, first of two that are equal, last of four that are equal.
    assert figures["clean: likelify, mean rank of 5"].value == pytest.approx((1 + 1.5 + 3.5) / 3)
    assert figures["clean: mean rank ahead of IsolationForest"].value == pytest.approx((4.5 - 6) / 3)
    gap = figures["contaminated: AUROC above IsolationForest"]
    assert (gap.value, gap.must) == (pytest.approx(0), -0.02)
    lower, upper = (
        figures[f"clean: AUROC above IsolationForest, {side} end of 90 %"].value for side in ("lower", "upper")
    )
    assert -0.1 < lower < 0 < upper < 0.1


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    file, calls = tmp_path / "kept.json", []

    def measure(task, part, **_):
        calls.append(part)
        return {OURS: Measured(0.5, 0.5, 1.0)}

    monkeypatch.setattr(outliers, "measure", measure)
    monkeypatch.setattr(outliers, "TABLES", {"one": table, "two": table})
    outliers.all_tables(["one"], file, seconds=1.0, seeds=1)
    found = outliers.all_tables(["one", "two"], file, seconds=1.0, seeds=1)
    assert calls == [CLEAN_TASK, CONTAMINATED] * 2
    assert list(found) == list(json.loads(file.read_text())["tables"]) == ["one", "two"]
    # A file of other settings is neither taken for this one nor lost.
    with pytest.raises(SystemExit, match="other settings or code; give another file"):
        outliers.all_tables(["one"], file, seconds=2.0, seeds=1)
    assert list(json.loads(file.read_text())["tables"]) == ["one", "two"]


def test_no_table_was_tuned_on():
    assert not set(outliers.TABLES) & set(outliers.TUNED_ON)
    assert len(outliers.TABLES) >= 20
