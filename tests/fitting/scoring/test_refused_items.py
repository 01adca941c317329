"""Items that cannot be scored, and what is said of them."""

import numpy as np
import pytest

from likelify.data import as_source, table
from likelify.errors import ConfigError, DataError, NonFiniteError
from likelify.fitting.run import Run
from likelify.fitting.scoring import likelihoods, scoring
from likelify.fitting.scoring.scoring import items_of, score_file, summarize
from tests.fitting.scoring.runs import image_run, rows, scored, stripes, write_rows


def test_items_that_cannot_be_scored_are_refused_in_words(run, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "new.csv", rows(5))
    with pytest.raises(ConfigError, match="numbers of draws do not fit"):
        run.score(file, draws=0)
    empty = as_source(rows(40))
    monkeypatch.setattr(Run, "source", lambda _: empty)
    with pytest.raises(DataError, match="There is nothing to rank among.* has no items in its split .*reference=None"):
        run.score(file, draws=2, reference="test")
    header = tmp_path / "header.csv"
    header.write_text("length,width,weight\n")
    for function in (lambda asked: score_file(asked, tmp_path / "out.csv"), summarize, scoring.score_items):
        with pytest.raises(DataError):
            function(scored(run, header, reference=None))
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.csv.parts").exists()


def test_an_item_whose_likelihood_is_no_number_is_named(run, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "new.csv", rows(60))

    def broken(flow, x, context, effort, seed):
        found = plain(flow, x, context, effort, seed)
        found.value[5:] = np.nan if len(x) == 12 else found.value[5:]
        return found

    plain = likelihoods.log_likelihoods
    monkeypatch.setattr(likelihoods, "log_likelihoods", broken)
    with pytest.raises(NonFiniteError, match=r"row 53 \(counted from 0\) is not a number, and that of 6 more"):
        run.score(file, draws=2, reference=None)
    with pytest.raises(NonFiniteError):
        score_file(scored(run, file, reference=None), tmp_path / "out.csv")
    assert (tmp_path / "out.csv.parts" / "00000000.part").exists()  # what was done stays


def test_a_scoring_that_is_refused_at_its_first_row_leaves_nothing(run, tmp_path):
    file = write_rows(tmp_path / "new.csv", rows(5))
    lines = file.read_text().splitlines()
    cells = lines[1].split(",")
    file.write_text("\n".join([lines[0], ",".join([cells[0], "x", *cells[2:]]), *lines[2:]]))
    asked = scored(run, file, reference=None)
    with pytest.raises(DataError, match="line 2"):
        score_file(asked, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == []


def test_a_model_of_classes_needs_labels(tmp_path, monkeypatch):
    run = image_run(tmp_path / "run", monkeypatch)
    conditional = Run(run.path, run.config.model_copy(update={"conditional": True}))
    with pytest.raises(DataError, match="knows images of a class only, and The data have no labels"):
        conditional.score(stripes().read_all("test").x.numpy(), reference=None)


def test_rows_in_other_units_than_those_of_an_experiment_are_refused(run):
    from likelify.fitting.sources import DataChoice

    opened = DataChoice(source="rows", standardized=True)
    other = Run(run.path, run.config.model_copy(update={"opened": opened}))
    with pytest.raises(ConfigError, match="in units of their standard deviations"):
        items_of(other, rows(5))
    assert items_of(other, table(rows(40))).count == 4
