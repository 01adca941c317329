"""Tables with columns of all kinds, in and out of the forms that users have."""

import shutil

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import likelify as lk
from likelify.errors import ConfigError, DataError, LikelifyWarning, StateError
from likelify.fitting.choose import choose
from likelify.fitting.settings import RunConfig
from tests.fitting.estimator.tables import TINY, density, people

pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")
CONDITIONS = ["age", "home town", "member", "since"]


@pytest.fixture(scope="module")
def fitted():
    return density(settings=TINY | {"steps": 20}).fit(people())


def test_every_form_gives_the_same_density_and_gets_its_own_back(fitted):
    frame = people()
    scores = fitted.score_samples(frame)
    assert np.isfinite(scores).all()
    for table in (pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        other = density(settings=TINY | {"steps": 20}).fit(table)
        assert (other.score_samples(table) == scores).all()
        drawn = other.sample(6, random_state=1)
        assert type(drawn) is type(table)
        assert drawn.schema == table.schema.remove_metadata() if isinstance(table, pa.Table) else table.schema
    drawn = fitted.sample(200, random_state=1)
    assert (drawn.dtypes == frame.dtypes).all()
    assert set(drawn["home town"]) == {"Bern", "Basel", "Chur"}
    assert drawn["income"].isna().any()
    assert (drawn["income"].dropna().round(2) == drawn["income"].dropna()).all()
    assert np.isfinite(fitted.score_samples(drawn)).all()


def test_arrays_of_objects_hold_words_and_numbers(fitted):
    cells = people()[["age", "income", "home town"]].to_numpy(dtype=object)
    words = density().fit(cells)
    assert words.schema_[2].kind == "category"
    assert np.isfinite(words.score_samples(cells)).all()
    drawn = words.sample(5)
    assert drawn.dtype == object
    assert {type(value) for value in drawn[:, 2]} == {str}
    assert words.score_samples(cells.tolist()).shape == (200,)


def test_types_of_columns_are_kept():
    frame = people()
    frame["home town"] = frame["home town"].astype("category")
    frame["age"] = frame["age"].astype("int16")
    frame["income"] = frame["income"].astype("float32")
    drawn = density().fit(frame).sample(20)
    assert (drawn.dtypes == frame.dtypes).all()


def test_an_index_is_no_column():
    frame = people().set_index("home town", append=True)
    fitted = density().fit(frame)
    assert fitted.feature_names_in_.tolist() == ["age", "income", "member", "since"]
    assert fitted.sample(2).index.tolist() == [0, 1]
    filled = fitted.impute(frame)
    assert filled.index.equals(frame.index)
    assert filled.notna().all().all()


def test_names_are_checked(fitted):
    frame = people()
    with pytest.raises(ValueError, match="same order"):
        fitted.score_samples(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="now missing"):
        fitted.score_samples(frame[["age", "income"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.score_samples(frame.to_numpy(dtype=object))


def test_new_words_count_as_missing_and_are_told(fitted):
    frame = people().head(3)
    frame.loc[1, "home town"] = "Genf"
    with pytest.warns(LikelifyWarning, match="Genf"):
        scores = fitted.score_samples(frame)
    assert np.isfinite(scores).all()
    assert scores[1] < fitted.score_samples(people().head(3))[1]


def test_the_noise_of_rows_and_back(fitted):
    frame = people()
    noise = fitted.transform(frame)
    assert noise.shape == (200, 5)
    assert np.isfinite(noise).all()
    pd.testing.assert_frame_equal(fitted.inverse_transform(noise), frame, check_dtype=False)
    named = lk.FlowDensity.set_output(fitted, transform="polars").transform(frame)
    lk.FlowDensity.set_output(fitted, transform="default")
    assert isinstance(named, pl.DataFrame)
    assert named.columns == fitted.get_feature_names_out().tolist()
    with pytest.raises(DataError, match="noise has 2 columns; that of this model has 5"):
        fitted.inverse_transform(noise[:, :2])


def test_rows_are_drawn_given_some_columns(fitted):
    drawn = fitted.sample(4, random_state=0, given={"age": 40, "home town": "Chur"})
    assert (drawn["age"] == 40).all()
    assert (drawn["home town"] == "Chur").all()
    assert drawn["income"].nunique() > 1
    given = pl.DataFrame({"home town": ["Bern", "Chur"]})
    assert fitted.sample(2, given=given)["home town"].tolist() == ["Bern", "Bern", "Chur", "Chur"]
    with pytest.raises(DataError, match="no column 'agge'"):
        fitted.sample(given={"agge": 3})
    with pytest.raises(DataError, match="no word 'Genf'"):
        fitted.sample(given={"home town": "Genf"})
    with pytest.raises(ConfigError, match="dictionary of values"):
        fitted.sample(given=3)


def test_conditions_that_the_data_never_had_are_refused(fitted):
    with pytest.raises(DataError, match="'age' = 40.5 in row 0 is no multiple of 1"):
        fitted.sample(given={"age": 40.5})
    with pytest.raises(DataError, match="'age' is missing in row 0, and was never missing"):
        fitted.sample(given={"age": None})
    assert len(fitted.sample(2, given={"income": None})) == 2
    frame = people(80)[["age"]].assign(same=1, k=np.arange(80) * 10.0)
    plain = density(dependent="function").fit(frame.assign(twice=2 * frame["k"] + 1))
    for name in ("same", "twice"):
        with pytest.raises(DataError, match=f"'{name}' (has one value only|follows from 'k')"):
            plain.sample(given={name: 1})


def test_what_is_missing_is_drawn(fitted):
    frame = people()
    filled = fitted.impute(frame, random_state=0)
    assert filled.notna().all().all()
    known = frame["income"].notna()
    pd.testing.assert_frame_equal(filled[known], frame[known])
    first, second = fitted.impute(frame, 2, random_state=1)
    assert (first.loc[~known, "income"] != second.loc[~known, "income"]).any()


def test_words_for_missing_values_are_those_that_were_said():
    frame, gone = people(), people()["income"].isna()
    frame["income"] = [-1.0 if missing else income for missing, income in zip(gone, frame["income"], strict=True)]
    frame["home town"] = np.where(frame["age"] < 30, "-", frame["home town"])
    said = density(missing=["-", -1]).fit(frame)
    meant = frame.assign(
        income=frame["income"].where(~gone), **{"home town": frame["home town"].where(frame["age"] >= 30)}
    )
    plain = density().fit(meant)
    assert (said.score_samples(frame) == plain.score_samples(meant)).all()
    assert said.schema_ == plain.schema_
    filled = said.impute(frame.head(40))
    assert (filled["income"] > 0).all()
    assert set(filled["home town"]) == {"Bern", "Basel", "Chur"}
    assert filled[~gone.head(40)]["income"].equals(frame.head(40)[~gone.head(40)]["income"])


def test_odd_rows_have_small_p_values_and_columns_to_blame(tmp_path):
    frame = people()[["age", "income"]]
    fitted = density().fit(frame)
    shares = fitted.p_values(frame)
    # Of twenty held-out rows.
    assert 1 / 21 <= shares.min() < 0.2
    assert (np.diff(shares[np.argsort(fitted.outlier_scores(frame))]) <= 0).all()
    odd = frame.head(2).assign(income=[5e8, 20_000.0]).set_axis(["a", "b"])
    assert fitted.p_values(odd)[0] == pytest.approx(1 / 21)
    gains = fitted.blame(odd)
    assert gains.index.tolist() == ["a", "b"]
    assert gains.columns.tolist() == odd.columns.tolist()
    assert gains.loc["a"].idxmax() == "income"
    assert (gains >= 0).all().all()
    run = fitted.save(tmp_path / "run")
    assert (lk.FlowDensity.load(tmp_path / "run").p_values(frame) == shares).all()
    # The run itself has no data, and ranks rows as well.
    scored = run.score(odd, blame=True)
    assert scored.outlier_rank == pytest.approx(fitted.p_values(odd))
    assert scored.gains == pytest.approx(gains.to_numpy())


def test_the_oddest_rows_are_trimmed():
    rows, odd = people()[["age", "income"]].to_numpy(), np.random.default_rng(0).uniform(1e6, 1e7, size=(20, 2))
    mixed = np.concatenate([rows, odd.round(2)])
    gain = density(trim=0.15).fit(mixed).score_samples(mixed) - density().fit(mixed).score_samples(mixed)
    assert gain[:200].mean() > 0
    assert gain[200:].max() < -1


def test_a_density_given_columns():
    frame = people()
    given = density(given=CONDITIONS, settings=TINY | {"steps": 20}).fit(frame)
    assert [column.name for column in given.schema_ if column.given] == CONDITIONS
    quantiles = given.predict_quantiles(frame.head(6), [0.1, 0.5, 0.9])
    assert quantiles.shape == (6, 3)
    assert (np.diff(quantiles) > 0).all()
    # What is not looked at may be anything.
    hidden = frame.head(6).assign(income=1.0)
    assert given.predict_quantiles(hidden, [0.1, 0.5, 0.9]) == pytest.approx(quantiles)
    with pytest.raises(ConfigError, match=r"given age.*sample\(n, given="):
        given.sample(3)
    drawn = given.sample(3, given=frame[CONDITIONS].head(2))
    assert drawn["age"].tolist() == [frame["age"][0]] * 3 + [frame["age"][1]] * 3
    assert given.score(frame) > density().fit(frame).score(frame)


def test_a_column_to_predict_must_be_said(fitted):
    frame = people().head(3)
    with pytest.raises(ConfigError, match="Several columns could be meant .*target='age'"):
        fitted.predict_quantiles(frame)
    with pytest.raises(ConfigError, match="no column 'x'"):
        fitted.predict_quantiles(frame, target="x")
    assert fitted.predict_quantiles(frame, [0.5], target="income").shape == (3, 1)


def test_columns_are_said_and_dropped():
    frame = people().assign(zip=np.arange(200) % 40 + 8000, id=[f"P{number:05d}" for number in range(200)])
    fitted = density(columns={"zip": "category", "age": "integer[0,120]"}, drop=["id"]).fit(frame)
    kinds = {column.name: column.kind for column in fitted.schema_}
    assert kinds["zip"] == "category"
    assert "id" not in kinds
    assert fitted.n_features_in_ == 7
    assert "id" not in fitted.sample(3)
    assert fitted.impute(frame)["id"].equals(frame["id"])
    old = frame.head(2).assign(age=121)
    assert (fitted.score_samples(old) == -np.inf).all()


def test_columns_of_arrays_are_named_by_their_places():
    rows = people()[["age", "income"]].to_numpy()
    fitted = density(columns={0: "integer[0,120]"}, given=[0]).fit(rows)
    assert fitted.schema_[0].declared
    assert fitted.schema_[0].given
    assert fitted.sample(3, given={0: 50})[:, 0].tolist() == [50, 50, 50]


def test_columns_of_arrays_are_dropped():
    rows = people()[["age", "income"]].to_numpy()
    rows = np.column_stack([rows[:, 0] / 2, rows])
    fitted = density(drop=[1]).fit(rows)
    assert [column.name for column in fitted.schema_] == ["column 1", "column 3"]
    assert fitted.predict(rows).shape == (len(rows),)
    alone = density().fit(rows[:, [0, 2]])
    assert alone.score_samples(rows[:, [0, 2]]).shape == fitted.score_samples(rows).shape
    filled = fitted.impute(rows)
    assert np.isfinite(filled).all()
    assert (filled[:, :2] == rows[:, :2]).all()


def test_a_run_of_a_mixed_table_is_an_estimator(fitted, tmp_path):
    frame = people()
    fitted.save(tmp_path / "run")
    again = lk.FlowDensity.load(tmp_path / "run")
    assert (again.score_samples(frame) == fitted.score_samples(frame)).all()
    assert again.feature_names_in_.tolist() == list(frame.columns)
    assert again.sample(3, 0)["home town"].tolist() == fitted.sample(3, 0)["home town"].tolist()
    (tmp_path / "run" / "estimator.json").unlink()
    plain = lk.FlowDensity.load(tmp_path / "run")
    assert (plain.score_samples(frame) == fitted.score_samples(frame)).all()
    assert isinstance(plain.sample(2), pa.Table)


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow"])
def test_types_of_columns_are_those_of_the_table_after_loading_too(form, tmp_path):
    frame = people().astype({"age": "int16", "income": "float32", "home town": "category", "member": "boolean"})
    frame["home town"] = frame["home town"].astype(str if form == "arrow" else "category")
    table = {"pandas": lambda: frame, "polars": lambda: pl.DataFrame(frame), "arrow": lambda: as_table(frame)}[form]()
    fitted = density().fit(table)
    fitted.save(tmp_path / "run")
    again = lk.FlowDensity.load(tmp_path / "run")
    first, second = fitted.sample(5, 0), again.sample(5, 0)
    if form == "pandas":
        assert second.dtypes.astype(str).tolist() == frame.dtypes.astype(str).tolist()
        assert second.astype(str).equals(first.astype(str))
    else:
        assert second.schema == first.schema
        assert second.equals(first)


def as_table(frame):
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def test_any_run_of_a_table_is_an_estimator_with_the_threshold_of_held_out_rows(tmp_path):
    file = tmp_path / "people.csv"
    people().to_csv(file, index=False)
    source = lk.data.open_source(str(file))
    chosen = choose(source.facts(), settings=TINY)
    run = lk.Run.create(tmp_path / "run", RunConfig(data=source.facts(), **chosen.configured()))
    lk.fit(chosen.model.build(), source, run=run)
    found = lk.FlowDensity.from_run(run)
    words = people().assign(since=people()["since"].dt.strftime("%Y-%m-%d"))
    assert 0.8 < (found.predict(words) == 1).mean() < 1
    file.unlink()
    shutil.rmtree(run.path / "scores")
    alone = lk.FlowDensity.from_run(run)
    assert (alone.outlier_scores(words) == found.outlier_scores(words)).all()
    for ask, said in (("predict", "no threshold of outliers"), ("p_values", "fit again"), ("blame", "fit again")):
        with pytest.raises(StateError, match=said):
            getattr(alone, ask)(words)


def test_a_table_of_which_nothing_is_left_to_model_is_refused():
    with pytest.raises(ConfigError, match="nothing to model"):
        density().fit(pd.DataFrame({"same": ["a"] * 12, "also": [1.5] * 12}))
    with pytest.raises(DataError, match="nothing left to model"):
        density(given=["age"]).fit(people()[["age"]])
    with pytest.raises(ConfigError, match="nothing to model"):
        density(given=["age"]).fit(people()[["age"]].assign(same=1))


def test_columns_with_labels_that_are_no_texts_may_come_in_any_order():
    numbers = np.random.default_rng(0)
    frame = pd.DataFrame({0: numbers.normal(size=80), 1: 100 * numbers.normal(size=80), 2: 9 + numbers.normal(size=80)})
    fitted = density().fit(frame)
    holes = frame.head(5).copy()
    holes.loc[0, 0], holes.loc[1, 2] = np.nan, np.nan
    turned = holes[[2, 1, 0]]
    filled = fitted.impute(turned, random_state=0)
    assert list(filled.columns) == [2, 1, 0]
    assert not filled.isna().any().any()
    pd.testing.assert_frame_equal(filled[[0, 1, 2]], fitted.impute(holes, random_state=0))
    odd = frame.head(3).copy()
    odd.loc[1, 0] = 40.0
    assert fitted.blame(odd[[2, 1, 0]]).loc[1].idxmax() == fitted.blame(odd).loc[1].idxmax() == 0


def test_a_dictionary_gives_one_value_of_each_column():
    frame = pd.DataFrame({"a": np.arange(60.0) % 7, "b": np.random.default_rng(0).normal(size=60)})
    fitted = density().fit(frame)
    with pytest.raises(ConfigError, match="one value of 'b'"):
        fitted.sample(2, given={"b": [1.0, 2.0]})
    with pytest.raises(ConfigError, match="given twice"):
        fitted.sample(2, given={"b": 1.0, 1: 2.0})
    assert len(fitted.sample(2, given={"b": np.array(1.0)})) == 2
