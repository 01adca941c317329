"""Runs of tables: conditional draws, quantiles, tables of the data's own types, scores of synthetic rows."""

import csv
import re

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from likelify.data import SourceOptions
from likelify.errors import ConfigError, DataError
from likelify.fitting.drawing.filling import impute_to
from likelify.fitting.estimator.density import FlowDensity
from likelify.fitting.report.blocks import Section
from likelify.fitting.report.material import Material
from likelify.fitting.report.page import made
from likelify.fitting.report.sections.copies import copies
from likelify.fitting.report.sections.samples import samples
from likelify.fitting.run import Run
from likelify.fitting.sources import DataChoice
from likelify.fitting.starting import fit_run
from likelify.fitting.typed import arrow_table
from tests.app.command import said
from tests.fitting.conditioning.tables import LIVED, apples


def shown(run, source, fill):
    """Return a section of the report in its parts, as one text."""
    section = made(Material(run, source), fill, Section("word", "title"))
    assert section.missing is None
    return str(section)


def test_draws_given_a_value_have_it_and_the_types_of_the_data(mixed):
    run, _ = mixed
    rows = run.sample(40, given={"size": "6.5", "sort": "Gala"}, seed=2)
    table = run.as_table(rows)
    assert rows.shape == (40, 7)
    assert set(table["size"].to_pylist()) == {6.5}
    assert set(table["sort"].to_pylist()) == {"Gala"}
    assert [str(field.type) for field in table.schema][2:5] == ["int64", "date32[day]", "bool"]
    assert table["seeds"].null_count + table["ripe"].null_count == 0
    weights = [value for value in table["weight"].to_pylist() if value is not None]
    assert all(round(value, 1) == value for value in weights)
    # What follows is computed of what is written.
    for size, weight, both in zip(*(table[name].to_pylist() for name in ("size", "weight", "both")), strict=True):
        assert (weight is None and both is None) or both == pytest.approx(size + weight, abs=0.01)


def test_a_table_of_conditions_gives_as_many_rows_of_each_in_order(mixed):
    run, _ = mixed
    given = {"size": [5.0, 6.0, 7.0]}
    assert run.sample(given=given)[:, 0].tolist() == [5, 6, 7]
    assert run.sample(2, given=given)[:, 0].tolist() == [5, 5, 6, 6, 7, 7]
    assert np.array_equal(run.sample(3, given={"size": 5.0}), run.sample(3, given={"size": 5.0}), equal_nan=True)
    with pytest.raises(ConfigError, match="neither a label nor a temperature"):
        run.sample(3, given=given, temperature=0.5)


def test_a_model_fitted_given_columns_is_drawn_from_only_with_them(conditioned):
    run, source = conditioned
    with pytest.raises(
        ConfigError, match=r"fitted given 'size', 'sort', so that .*run.sample\(given=\{'size'.*--given"
    ):
        run.sample(3)
    rows = run.sample(5, given={"size": 5.0, "sort": "Gala"})
    assert rows[:, :2].tolist() == [[5, 1]] * 5
    # The report and the scores take them from held-out rows.
    assert 0.3 < run.quality(source=source).column_shapes <= 1
    assert "Column shapes" in shown(run, source, samples)


def test_quantiles_and_densities_of_a_column_given_the_others(mixed):
    run, _ = mixed
    rows = apples(12, seed=5)
    found = run.predict_quantiles(rows, [0.1, 0.5, 0.9], target="weight")
    assert found.shape == (12, 3)
    assert (np.diff(found) >= 0).all()
    density = run.conditional_log_prob(rows, target="weight")
    assert np.isfinite(density.nats).all()
    with pytest.raises(ConfigError, match="Several columns could be meant"):
        run.predict_quantiles(rows, [0.5])
    with pytest.raises(ConfigError, match="Did you mean 'weight'"):
        run.predict_quantiles(rows, [0.5], target="weigth")


def test_scores_of_synthetic_rows_know_good_from_bad(mixed):
    run, source = mixed
    train = run.quality(apples(400, seed=9), source=source)
    columns = enumerate(apples(400, seed=9).T)
    shuffled = np.column_stack([np.random.default_rng(at).permutation(column) for at, column in columns])
    apart = run.quality(shuffled, source=source)
    assert train.column_shapes > 0.85
    assert apart.column_shapes == pytest.approx(train.column_shapes, abs=1e-9)
    assert train.column_pair_trends > apart.column_pair_trends + 0.15


def test_the_report_shows_columns_of_every_kind(mixed):
    run, source = mixed
    text = shown(run, source, samples)
    for part in ("Bars of sort", "Histograms of day", "missing 8.2% real", "joint table", "(missing)", "Cox, red"):
        assert part in text, part
    assert "02.2025" in text


def test_the_report_says_how_near_training_rows_are_and_promises_nothing(mixed):
    run, source = mixed
    text = shown(run, source, copies)
    # Size and sort say nearly all of an apple, so that a few of 500 can be equal by chance.
    assert re.search(r"(No sample equals|[0-9] of 500 samples equal) a training row", text)
    assert "not anonymous" in text
    assert "copies what it was fitted to" not in text


def test_copies_of_mixed_rows_are_found(mixed, monkeypatch):
    run, source = mixed
    drawn = source.read("train", torch.arange(300)).x
    monkeypatch.setattr(Material, "drawn", property(lambda _: drawn))
    section = made(Material(run, source), copies, Section("Copies", ""))
    assert any("100% of the samples equal a training row" in doubt for doubt in section.doubts)


def test_the_command_draws_given_words_and_tables(mixed, monkeypatch, capsys, tmp_path):
    run, _ = mixed
    monkeypatch.chdir(tmp_path)
    printed = said(monkeypatch, capsys, "sample", run.path, "--given", "sort=Cox, red,size=5", "-n", 7, "-o", "x.csv")
    assert "7 samples: x.csv" in printed
    assert "effective sample size" in printed or "exact" in printed
    with open("x.csv", newline="") as handle:
        header, *lines = csv.reader(handle)
    assert header == [column.name for column in LIVED]
    assert [line[:2] for line in lines] == [["5.0", "Cox, red"]] * 7
    (tmp_path / "c.csv").write_text("ripe,size\ntrue,5\nfalse,6\n")
    said(monkeypatch, capsys, "sample", run.path, "--given", "c.csv", "-o", "y.parquet")
    table = pyarrow.parquet.read_table("y.parquet")
    assert (table["ripe"].to_pylist(), table["size"].to_pylist()) == ([True, False], [5.0, 6.0])
    complaint = said(monkeypatch, capsys, "sample", run.path, "--given", "sort=Galla", code=2)
    assert "Did you mean 'Gala'" in complaint
    complaint = said(monkeypatch, capsys, "sample", run.path, "--given", "size=5", "--impute", "c.csv", code=2)
    assert "exclude one another" in complaint


def holes(folder):
    """Write a file of apples with an id, of which cells are empty; return its raw rows."""
    rows = apples(30, seed=6)
    pyarrow.csv.write_csv(arrow_table(rows, LIVED, written=True), folder / "apples.csv")
    lines = (folder / "apples.csv").read_text().splitlines()
    numbered = [f"a{number},{line}" for number, line in enumerate(lines[1:])]
    (folder / "holes.csv").write_text("\n".join([f'"id",{lines[0]}', *numbered]) + "\n")
    return rows


def test_missing_values_of_a_file_are_filled_in(mixed, tmp_path):
    run, _ = mixed
    rows = holes(tmp_path)
    found = run.impute(tmp_path / "holes.csv", draws=3, seed=1)
    assert found.rows.shape == (30, 3, 7)
    assert np.isfinite(found.rows).all()
    known = ~np.isnan(rows)
    assert np.allclose(found.rows[known[:, None].repeat(3, 1)], rows[:, None].repeat(3, 1)[known[:, None].repeat(3, 1)])
    assert found.exact[known.all(1)].all()
    assert (found.ess > 2.9).all()
    drawn = found.rows[np.isnan(rows[:, 5])][:, :, 5]
    assert (drawn.std(1) > 0).all()


def test_the_command_fills_in_files_and_keeps_what_they_had(mixed, monkeypatch, capsys, tmp_path):
    run, _ = mixed
    rows = holes(tmp_path)
    monkeypatch.chdir(tmp_path)
    number = int(np.isnan(rows[:, :6]).sum())
    words = ("sample", run.path, "--impute", "holes.csv", "-o")
    printed = said(monkeypatch, capsys, *words, "full.csv")
    assert f"{number} values of 30 rows filled in: full.csv" in printed
    with open("holes.csv", newline="") as before, open("full.csv", newline="") as after:
        old, new = list(csv.reader(before)), list(csv.reader(after))
    assert new[0] == old[0]
    for before, after in zip(old[1:], new[1:], strict=True):
        kept = [(one, other) for one, other in zip(before[:7], after[:7], strict=True) if one]
        # Words that a spreadsheet would run have an apostrophe in front.
        assert all(one == other.lstrip("'") or float(one) == float(other) for one, other in kept)
        assert all(after)
    printed = said(monkeypatch, capsys, *words, "five.parquet", "--draws", 5)
    assert "5 draws of each row" in printed
    table = pyarrow.parquet.read_table("five.parquet")
    assert table.column_names[:3] == ["row", "draw", "id"]
    assert table["draw"].to_pylist()[:6] == [0, 1, 2, 3, 4, 0]
    assert table["id"].to_pylist()[4:6] == ["a0", "a1"]
    complaint = said(monkeypatch, capsys, *words, "holes.csv", "--force", code=2)
    assert "is the file that is read" in complaint
    complaint = said(monkeypatch, capsys, *words, "full.npy", code=2)
    assert "written to files in .csv, .parquet, .feather" in complaint


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A run of a table in which -1 stands for a missing value, and a file of such rows."""
    place = tmp_path_factory.mktemp("marked")
    numbers = np.random.default_rng(0)
    a = numbers.normal(scale=3, size=300)
    cells = np.where(numbers.random(300) < 0.2, "-1", [f"{value:.3f}" for value in a])
    lines = ["a,b", *(f"{cell},{value + numbers.normal():.3f}" for cell, value in zip(cells, a, strict=True))]
    (place / "table.csv").write_text("\n".join(lines))
    run = fit_run(str(place / "table.csv"), place / "run", steps=30, options=SourceOptions(missing=("-1",)))
    for name, cell in (("marked", "-1"), ("empty", "")):
        (place / f"{name}.csv").write_text(f"a,b\n{cell},8\n{cell},1.5\n")
        (place / f"given-{name}.csv").write_text(f"a,b\n{cell},8\n".replace(",b", "").replace(",8", "") + "2.0\n")
    return run, place


@pytest.mark.filterwarnings("ignore::likelify.errors.LikelifyWarning")
def test_words_for_missing_values_are_missing_everywhere(marked):
    run, place = marked
    marker, empty = place / "marked.csv", place / "empty.csv"
    one, other = (run.conditional_log_prob(file, target="b").nats for file in (marker, empty))
    assert np.array_equal(one, other)
    one, other = (run.predict_quantiles(file, [0.1, 0.5], target="b") for file in (marker, empty))
    assert np.array_equal(one, other)
    drawn = [run.sample(20, given={"a": value}, seed=1) for value in ("-1", -1, None)]
    assert all(np.array_equal(drawn[0], each, equal_nan=True) for each in drawn[1:])


def test_raw_rows_hold_no_words_for_missing_values(marked):
    run, _ = marked
    rows = np.array([[-1.0, 0.5]])
    assert run.as_table(rows)["a"].to_pylist() == [-1.0]


def test_sums_of_which_a_part_is_drawn_are_those_of_what_is_written(mixed, tmp_path):
    run, _ = mixed
    rows = run.as_table(run.sample(6, seed=3)).to_pylist()
    sizes = [5.123456, 6.0, 7.25, 5.5, 6.75, 6.1]
    known = pyarrow.table({"size": sizes, "weight": [None] * 6, "both": [None] * 6})
    for name in (name for name in rows[0] if name not in known.column_names):
        known = known.append_column(name, [[row[name] for row in rows]])
    pyarrow.parquet.write_table(known, tmp_path / "holes.parquet")
    impute_to(run, str(tmp_path / "holes.parquet"), tmp_path / "full.parquet")
    full = pyarrow.parquet.read_table(tmp_path / "full.parquet")
    assert full["size"].to_pylist() == sizes
    for size, weight, both in zip(*(full[name].to_pylist() for name in ("size", "weight", "both")), strict=True):
        assert both == pytest.approx(size + weight, abs=0.005)


def test_known_numbers_keep_their_digits_when_cells_are_filled_in(marked, tmp_path):
    run, _ = marked
    rows = pyarrow.table({"a": [1.23456789, None, 0.5], "b": [None, 2.3456789, None]})
    pyarrow.parquet.write_table(rows, tmp_path / "holes.parquet")
    for name in ("full.parquet", "full.csv"):
        impute_to(run, str(tmp_path / "holes.parquet"), tmp_path / name)
    parquet = pyarrow.parquet.read_table(tmp_path / "full.parquet")
    text = pyarrow.csv.read_csv(tmp_path / "full.csv")
    for table in (parquet, text):
        assert table["a"].to_pylist()[0::2] == [1.23456789, 0.5]
        assert table["b"].to_pylist()[1] == 2.3456789
        drawn = [table["b"].to_pylist()[0], table["a"].to_pylist()[1]]
        assert all(value == round(value, 3) for value in drawn)


def test_the_file_that_is_read_is_not_written_over(marked, monkeypatch, capsys):
    run, place = marked
    file = place / "given-empty.csv"
    kept = file.read_text()
    words = ("sample", run.path, "--given", file, "-o", file, "--force")
    assert "is the file that is read" in said(monkeypatch, capsys, *words, code=2)
    assert file.read_text() == kept


def test_conditions_that_were_never_missing_must_be_known(conditioned):
    run, _ = conditioned
    rows = run.sample(given={"size": [5.0, 6.0], "sort": ["Gala", "Gala"]})
    rows[1, 0] = np.nan
    with pytest.raises(DataError, match=r"given 'size'.*of row 1 it is not"):
        run.predict_quantiles(rows, [0.5], target="weight")


def test_raw_rows_have_the_columns_of_the_model(mixed):
    run, _ = mixed
    with pytest.raises(DataError, match=r"Raw rows are an array \(rows, 7\)"):
        run.as_table(np.zeros((2, 5)))


def test_cells_between_the_steps_of_a_column_are_named(mixed):
    run, _ = mixed
    rows = run.sample(3)
    at = [column.name for column in run.config.data.schema].index("seeds")
    rows[:, at] = torch.tensor([1.0, 2.5, 3.0])
    with pytest.raises(DataError, match=r"'seeds' = 2.5 in row 1 is no multiple of 1"):
        run.conditional_log_prob(rows, target="size")


def test_rows_in_other_units_are_refused_by_all(mixed):
    run, _ = mixed
    opened = run.config.opened or DataChoice(source="apples")
    config = run.config.model_copy(update={"opened": opened.model_copy(update={"standardized": True})})
    other = Run(run.path, config)
    rows = run.sample(2)
    for call in (
        lambda: other.conditional_log_prob(rows, target="size"),
        lambda: other.predict_quantiles(rows, [0.5], target="size"),
        lambda: other.sample(2, given={"size": 5.0}),
        lambda: FlowDensity.from_run(other),
    ):
        with pytest.raises(ConfigError, match="units of their standard deviations"):
            call()
