import json
import pickle
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import likelify as lk
from likelify.errors import ConfigError, DataError, MissingDependencyError, RunError
from tests.fitting.estimator.tables import TINY, blobs, density

# Fits of two steps often learn nothing.
pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")


@pytest.fixture(scope="module")
def fitted():
    return density().fit(blobs())


def test_scores_are_densities_in_the_units_of_the_table(fitted):
    rows = blobs(20, seed=1)
    scores = fitted.score_samples(rows)
    assert scores.shape == (20,)
    assert scores.dtype == np.float64
    assert fitted.score(rows) == pytest.approx(scores.mean())
    with torch.no_grad(), fitted.flow_.frozen():
        assert scores == pytest.approx(fitted.flow_.log_prob(torch.from_numpy(rows)).double().numpy(), abs=1e-5)
    # In millimetres a density is smaller by a thousand for each column; the split is another.
    small = density().fit(blobs() * 1000)
    assert small.score(rows * 1000) == pytest.approx(scores.mean() - 3 * np.log(1000), abs=1)


def test_the_fit_is_the_same_in_any_order_and_for_the_same_random_state(fitted):
    rows = blobs()
    again = density().fit(rows[np.random.default_rng(1).permutation(len(rows))])
    assert (again.score_samples(rows) == fitted.score_samples(rows)).all()
    assert again.offset_ == fitted.offset_
    other = density(random_state=1).fit(rows)
    assert (other.score_samples(rows) != fitted.score_samples(rows)).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_threshold_is_of_the_same_rows_in_any_order(weighted, monkeypatch):
    monkeypatch.setattr("likelify.fitting.estimator.density.THRESHOLD_ROWS", 9)
    rows = np.repeat(blobs(30), 2, axis=0)
    weights = np.linspace(0.1, 0.9, len(rows)) if weighted else None
    first = density().fit(rows, sample_weight=weights)
    order = np.random.default_rng(1).permutation(len(rows))
    again = density().fit(rows[order], sample_weight=None if weights is None else weights[order])
    assert again.offset_ == first.offset_
    assert (again.score_samples(rows) == first.score_samples(rows)).all()


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_one_row_is_enough_to_ask_of(kind):
    density = lk.FlowDensity(random_state=0, settings=TINY).fit(kind(blobs()))
    assert density.predict(kind(blobs()[:1])).shape == (1,)
    with pytest.raises(ValueError, match=r"0 sample.*minimum of 1 is required"):
        density.predict(kind(blobs()[:0]))


@pytest.mark.parametrize("far", [1e30, -1e100])
def test_one_value_far_from_all_others_is_stood(far):
    rows = blobs()
    rows[7, 1] = far
    fitted = density().fit(rows)
    scores = fitted.score_samples(np.delete(rows, 7, axis=0))
    # The others are told apart as if it were not there.
    assert scores == pytest.approx(density().fit(blobs()).score_samples(np.delete(rows, 7, axis=0)), abs=1.5)
    assert np.ptp(scores) > 3
    assert np.isfinite(fitted.score_samples(rows)).all()
    assert np.isfinite(fitted.sample(20)).all()


def test_global_state_stays_as_it_was(monkeypatch):
    torch.manual_seed(3)
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.set_num_threads(2)
    try:
        fresh = density().fit(blobs())
        fresh.sample(3)
        fresh.predict(blobs())
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="infinity"):
            fresh.fit(np.full((20, 2), np.inf))
        with pytest.raises(ConfigError):
            density(settings={"nothing": 1}).fit(blobs())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert torch.is_grad_enabled() == grad


def test_draws_have_the_form_of_what_was_fitted(fitted):
    drawn = fitted.sample(5, random_state=1)
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == (5, 3)
    assert (drawn == fitted.sample(5, random_state=1)).all()
    assert (drawn != fitted.sample(5, random_state=2)).any()
    assert (fitted.sample(2) == fitted.sample(2)).all()
    free = density(random_state=None).fit(blobs())
    assert (free.sample(2) != free.sample(2)).any()


def test_outliers_are_the_share_that_was_asked_for(fitted):
    rows = blobs()
    assert (fitted.predict(rows) == -1).sum() == 6
    assert (fitted.decision_function(rows) < 0).sum() == 6
    assert (fitted.fit_predict(rows) == fitted.predict(rows)).all()
    assert fitted.predict(np.array([[50.0, -50.0, 50.0]])).tolist() == [-1]
    assert (fitted.decision_function(rows) == -fitted.outlier_scores(rows) - fitted.offset_).all()
    more = density(contamination=0.5).fit(rows)
    assert (more.predict(rows) == -1).sum() == 30
    assert not is_outlier_detector(fitted)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"contamination": 0.0}, "contamination must be above 0"),
        ({"contamination": 0.6}, "at most 0.5"),
        ({"contamination": "auto"}, "'auto'"),
        ({"time_budget": 0}, "time_budget must be a number of seconds"),
        ({"time_budget": "10"}, "time_budget"),
        ({"validation": 1.5}, "between 0 and 1"),
        ({"model": "glwo"}, "no model 'glwo'"),
        ({"model": "glow"}, "not for rows"),
        ({"settings": {"stesp": 1}}, "Did you mean 'steps'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_words(parameters, words):
    with pytest.raises(ConfigError if "validation" not in parameters else DataError, match=words):
        density(**parameters).fit(blobs(20))


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_too_few_rows_are_refused_with_the_number_that_is_needed(count, kind):
    with pytest.raises(ValueError, match=rf"{count} sample.*minimum of 10 is required"):
        density().fit(kind(blobs(20)[:count]))


def test_a_time_budget_ends_the_fit():
    short = density(time_budget=0.5, settings=TINY | {"steps": 100_000, "patience": None}).fit(blobs())
    assert short.course_.reason == "time is up"
    assert short.course_.seconds < 5


def test_there_is_no_partial_fit(fitted):
    assert not hasattr(fitted, "partial_fit")
    with pytest.raises(AttributeError, match="fitted to all rows at once"):
        fitted.partial_fit(blobs())


def test_nothing_is_asked_before_the_fit():
    rows = blobs()
    for ask in ("score_samples", "predict", "sample", "transform", "inverse_transform", "impute", "score"):
        with pytest.raises(NotFittedError):
            getattr(density(), ask)(rows if ask != "sample" else 1)
    with pytest.raises(NotFittedError):
        density().save("nowhere")


def test_whole_weights_count_rows_and_others_weigh_them():
    rows = blobs()
    counts = np.random.default_rng(0).integers(0, 4, len(rows))
    weighted = density().fit(rows, sample_weight=counts)
    repeated = density().fit(rows.repeat(counts, axis=0))
    assert (weighted.score_samples(rows) == repeated.score_samples(rows)).all()
    plain = density().fit(rows)
    alike = density().fit(rows, sample_weight=np.full(len(rows), 0.25))
    assert (plain.score_samples(rows) == alike.score_samples(rows)).all()
    # Weights of the two clouds, one of which hardly counts.
    high = rows.sum(1) > 4.5
    heavy = density(settings=TINY | {"steps": 40}).fit(rows, sample_weight=np.where(high, 1.0, 1e-3))
    even = density(settings=TINY | {"steps": 40}).fit(rows)
    gain = heavy.score_samples(rows) - even.score_samples(rows)
    assert gain[high].mean() > 0.2
    assert gain[~high].mean() < -0.2


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(3), "expected .60,"),
        (-np.ones(60), "below 0"),
        (np.zeros(60), "not all of it zero"),
        (np.r_[np.ones(9), np.zeros(51)], "9 sample"),
        (np.full(60, np.nan), "finite"),
        (["a"] * 60, "must be numbers"),
    ],
)
def test_weights_that_are_none_are_refused(weights, words):
    with pytest.raises(DataError, match=words):
        density().fit(blobs(), sample_weight=weights)


def test_it_is_cloned_pickled_and_dumped(fitted, tmp_path):
    rows = blobs()
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "flow_")
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.score_samples(rows) == fitted.score_samples(rows)).all()
    assert (again.sample(3, 0) == fitted.sample(3, 0)).all()
    joblib.dump(fitted, tmp_path / "density.joblib")
    assert (joblib.load(tmp_path / "density.joblib").predict(rows) == fitted.predict(rows)).all()


def test_it_is_kept_as_a_run(fitted, tmp_path):
    rows = blobs()
    run = fitted.save(tmp_path / "run")
    assert isinstance(run, lk.Run)
    again = lk.FlowDensity.load(tmp_path / "run")
    assert (again.score_samples(rows) == fitted.score_samples(rows)).all()
    assert (again.predict(rows) == fitted.predict(rows)).all()
    assert (again.sample(3, 0) == fitted.sample(3, 0)).all()
    assert again.get_params() == fitted.get_params()
    assert (again.p_values(rows) == fitted.p_values(rows)).all()
    assert again.n_features_in_ == 3
    assert again.course_ == fitted.course_
    assert run.score(rows, reference=None).nats == pytest.approx(fitted.score_samples(rows))
    with pytest.raises(RunError, match="not empty"):
        fitted.save(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kept: kept.clear(), "params: Field required"),
        (lambda kept: kept["params"].update(modle="x"), "modle"),
        (lambda kept: kept["params"].update(contamination=7), "contamination: Input"),
        (lambda kept: kept["params"].update(random_state=-1), "random_state: Input"),
        (lambda kept: kept["params"].update(columns=3), "columns.*: Input"),
        (lambda kept: kept.update(dtype="f9"), "there is no type 'f9'"),
        (lambda kept: kept.update(columns=["column 1", "b", "c"]), "it lacks the column 'column 2' of the model"),
        (lambda kept: kept.update(types={"a": "{"}), "types.a"),
    ],
)
def test_facts_that_are_damaged_are_told_in_words(change, words, fitted, tmp_path):
    fitted.save(tmp_path / "run")
    file = tmp_path / "run" / "estimator.json"
    kept = json.loads(file.read_text())
    change(kept)
    file.write_text(json.dumps(kept))
    with pytest.raises(RunError, match=f"estimator.json' is damaged: .*{words}"):
        lk.FlowDensity.load(tmp_path / "run")


def test_parameters_of_numpy_and_places_are_kept(tmp_path):
    density(
        drop=np.array(["column 3"]),
        columns={np.int64(0): "real"},
        given=(1,),
        contamination=np.float64(0.25),
        settings=TINY | {"steps": np.int64(3), "lr": np.float64(1e-3)},
        random_state=np.int64(4),
    ).fit(blobs()).save(tmp_path / "run")
    again = lk.FlowDensity.load(tmp_path / "run")
    assert again.drop == ["column 3"]
    assert again.columns == {"column 1": "real"}
    assert again.given == [1]
    assert again.contamination == 0.25
    assert again.settings == TINY | {"steps": 3, "lr": 1e-3}
    assert again.random_state == 4
    assert again.fit(blobs()).course_.steps == 3


@pytest.mark.parametrize(
    "parameters", [{"settings": TINY | {"seed": object()}}, {"contamination": 3.0}, {"time_budget": float("inf")}]
)
def test_what_cannot_be_kept_is_refused_before_a_folder_is_made(parameters, tmp_path):
    fitted = density().fit(blobs()).set_params(**parameters)
    with pytest.raises(ConfigError, match="estimator"):
        fitted.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_works_in_pipelines_and_searches():
    rows = blobs()
    pipeline = make_pipeline(StandardScaler(), density())
    assert pipeline.fit(rows).score_samples(rows).shape == (60,)
    search = GridSearchCV(density(), {"settings": [TINY, TINY | {"lr": 1e-2}], "validation": [0.2]}, cv=2)
    search.fit(rows)
    assert search.best_estimator_.score(rows) > -50
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_progress_is_off_unless_it_is_asked_for(capsys):
    density().fit(blobs())
    assert capsys.readouterr() == ("", "")
    density(verbose=True).fit(blobs())
    out, told = capsys.readouterr()
    assert out == ""
    assert "100%" in told
    assert "nats per held-out row" in told


def test_a_missing_package_names_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("likelify.fitting.estimator.density")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(vars(lk), "FlowDensity")
    with pytest.raises(MissingDependencyError, match=r"scikit-learn.*likelify\[app\]"):
        lk.FlowDensity  # noqa: B018


def test_the_device_is_the_users_and_is_kept(tmp_path):
    fitted = density(device="cpu").fit(blobs())
    fitted.save(tmp_path / "kept")
    assert lk.FlowDensity.load(tmp_path / "kept").get_params()["device"] == "cpu"
    with pytest.raises(ConfigError, match="no device 'cuda:9'"):
        density(device="cuda:9").fit(blobs())
