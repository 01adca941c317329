"""`FlowDensity`: the density of the rows of a table, in scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Never, Self

import numpy as np

from likelify.data.source import FEWEST
from likelify.errors import ConfigError, DataError, StateError, needs
from likelify.fitting.drawing.draw import whole_draws
from likelify.fitting.estimator.fitted import Fitted, Wanted, counted, fit_table, taken
from likelify.fitting.estimator.forms import Form, as_arrow, form_of, is_frame, unmasked
from likelify.fitting.estimator.given import (
    conditions_of,
    missing_words,
    named_columns,
    named_wishes,
    weights_of,
    without_missing,
)
from likelify.fitting.estimator.keeping import FILE, Kept, Params, kept_estimator, plain
from likelify.fitting.estimator.ordering import order_of
from likelify.fitting.estimator.telling import tell
from likelify.fitting.files import as_json, write_atomically
from likelify.fitting.run import Run

with needs("scikit-learn", "app"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
    from sklearn.utils import Tags, check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data

THRESHOLD_ROWS = 2**14  # whose scores place the threshold of outliers


class FlowDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):
    """The exact density of the rows of a table, fitted as the command line fits them.

    Numbers, words, truth values, dates and missing values are taken as they are: `score_samples` is in nats and in the
    units of the table, a density of real columns times probabilities of all others. Nothing is to be scaled, filled or
    encoded before.

    Args:
        model: name of a model of tables; by default the one that suits the data.
        time_budget: seconds that training may take at most; None leaves that to the settings of the model.
        columns: what columns are taken for where their values do not tell, by name: `{"zip": "category",
            "age": "integer[0,120]"}`; or the names of those to keep.
        drop: names of columns to leave out; `"auto"` stands for those that are proposed for it, such as ids.
        missing: words and numbers that stand for missing values beside the usual ones: `["-", -999]`.
        given: names of columns that are conditions: the density is then p(other columns | these).
        dependent: what columns that follow from others become: `"function"`, `"drop"`, or `"refuse"` as at commands.
        contamination: share of the rows fitted that `predict` calls outliers, above 0 and at most 0.5.
        trim: share of the rows, the oddest, that are left out of the fit, for data that hold outliers.
        validation: share of the rows that chooses the weights; by default a tenth, and at most 20,000 rows.
        settings: further ones of the model or of the fit by name, such as `{"steps": 500}`.
        random_state: of the split, the fit and draws without one; comes again in processes, not in parallel threads.
        device: that trains, such as "cpu" or "cuda:1"; by default the accelerator there is.
        verbose: write a line to the error output at every validation.

    Attributes:
        flow_: the fitted `Flow`, of rows of numbers; see `rows`.
        schema_: what each column was taken for.
        course_: how the fit went.
        offset_: minus the outlier score that `predict` starts to call odd.
        n_features_in_: number of columns.
        feature_names_in_: their names, if texts.

    Example:
        >>> from likelify import FlowDensity
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[:, 1] += rows[:, 0] ** 2
        >>> density = FlowDensity(random_state=0, settings={"steps": 20}).fit(rows)
        >>> density.score_samples(rows).shape, density.sample(3, random_state=1).shape
        ((200,), (3, 2))
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        time_budget: float | None = None,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        drop: Sequence[str] | str | None = None,
        missing: Sequence[str | float] | str | None = None,
        given: Sequence[str] | None = None,
        dependent: str = "function",
        contamination: float = 0.1,
        trim: float = 0.0,
        validation: float | None = None,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.time_budget = time_budget
        self.columns = columns
        self.drop = drop
        self.missing = missing
        self.given = given
        self.dependent = dependent
        self.contamination = contamination
        self.trim = trim
        self.validation = validation
        self.settings = settings
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # By scikit-learn's rule the scores of an outlier detector are its `score_samples`, which here is log p.
        tags.estimator_type = "density_estimator"
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit the density to a table.

        The result does not depend on the order of the rows. Weights that are whole numbers count rows: the fit is the
        one to a table with each row so often (up to 2^20 rows, or four times as many as there are). Other weights
        multiply the log-likelihood of each row in loss and validation, and marginals and mixtures that are not trained
        see rows as often as they weigh, rounded by less than one. Rows of weight zero do not count at all.

        Args:
            X: a data frame of pandas, polars or pyarrow, or an array; at least 10 rows. Values may be missing.
            y: ignored.
            sample_weight: of each row, not negative.

        Returns:
            This estimator.

        Raises:
            DataError: if there are too few rows, values are infinite or columns cannot be modelled; a ValueError.
            ConfigError: if a parameter does not fit; a ValueError.

            KeyboardInterrupt: if the fit was interrupted; the estimator then has the best weights so far.

        Warns:
            LikelifyWarning: where what was fitted may mean little.
        """
        data = self._read(X, reset=True)
        form = form_of(X if is_frame(X) else np.asarray(X), data)
        data, weights = counted(data, None if sample_weight is None else weights_of(sample_weight, len(data)))
        if not (isinstance(self.contamination, Real) and 0 < self.contamination <= 0.5):
            raise ConfigError(
                f"The contamination must be above 0 and at most 0.5, got {self.contamination!r}. Give the share of "
                "rows that are expected to be outliers, such as 0.1, the default; scores do not depend on it."
            )
        wanted = Wanted(
            model=self.model,
            time_budget=self.time_budget,
            columns=named_wishes(self.columns, form),
            drop=named_columns(self.drop, form),
            given=named_columns(self.given, form),
            dependent=self.dependent,
            trim=self.trim,
            validation=self.validation,
            settings=self.settings or {},
            device=self.device,
        )
        fitted = fit_table(data, wanted, weights=weights, seed=self._seed(), on_step=tell() if self.verbose else None)
        self._take(fitted, form)
        self.offset_ = self._threshold(data, weights)
        if fitted.course.reason == "interrupted":
            # Whoever called this, such as a search, was to be interrupted, too.
            raise KeyboardInterrupt
        return self

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the log-likelihood of each row in nats, in the units of the table: log p(others | given) with `given`.

        It is minus infinity outside of ranges that were declared, and where a column breaks the rule that it follows.

        Args:
            X: rows, as for `fit`.
        """
        return self._of(X, Fitted.log_prob)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the mean log-likelihood of rows in nats, which `GridSearchCV` maximises.

        Args:
            X: rows, as for `fit`.
            y: ignored.
        """
        return float(self.score_samples(X).mean())

    def outlier_scores(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return how odd each row is, the more the larger: another question than how likely, see `fitting.outliers`.

        Args:
            X: rows, as for `fit`.
        """
        return self._of(X, Fitted.outlier_scores)

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return minus `outlier_scores` minus `offset_`: below zero for outliers.

        Args:
            X: rows, as for `fit`.

        Raises:
            StateError: if the estimator is of a run without data, which have no threshold.
        """
        scores = self.outlier_scores(X)
        if not hasattr(self, "offset_"):
            raise StateError(
                "There is no threshold of outliers, since the data of the run are not there any more. Set offset_ "
                "yourself; outlier_scores needs none."
            )
        return -scores - self.offset_

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return -1 for outliers, and 1 for all other rows.

        Args:
            X: rows, as for `fit`.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return for each row the share of held-out rows that are at least as odd, itself counted among them.

        That is a p-value of the row coming from the same distribution, whatever the model is worth: among rows that do,
        it is at most `a` in a share of at most `a`. The held-out rows are those that validated; their number is the
        inverse of the smallest one, nearly.

        Args:
            X: rows, as for `fit`; other ones than those.

        Raises:
            StateError: if the estimator is of a run that keeps no scores, and without data.
        """
        return self._of(X, Fitted.p_values)

    def blame(self, X: Any) -> Any:  # noqa: N803
        """Return which columns make rows odd: what a row would gain, in nats, if one alone had the best value.

        See `fitting.scoring.replacing`; conditions are to blame for nothing. It takes 40 times as long a column as the
        scores of rows.

        Args:
            X: rows, as for `fit`.

        Returns:
            Gains `(n, columns of the model)`, zero where nothing is better: a data frame where rows are one, else an
            array in the order of `schema_`.

        Raises:
            StateError: if the estimator is of a run that keeps no values of columns, and without data.
        """
        gains, X = self._of(X, Fitted.blame), self._form.in_order(X) if is_frame(X) else np.asarray(X)  # noqa: N806
        return replace(form_of(X), columns=self._form.columns).numbers(X, gains, self.schema_)

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Return the noise of which the model would draw rows: independent standard normal numbers if it is right.

        Of tables of real numbers that is a bijection, which `inverse_transform` undoes. Words, whole numbers and
        missing values become the noise in the middle of what is drawn as them. In a column that has such values beside
        real ones a number comes back as exactly as its probability is told from theirs, in single precision: values
        that are as good as impossible may come back as the state next to them.

        Args:
            X: rows, as for `fit`.
        """
        return self._of(X, Fitted.to_noise)

    def inverse_transform(self, X: Any) -> Any:  # noqa: N803
        """Return the rows that the model draws of noise, in the form of the table that was fitted.

        Args:
            X: noise `(n, columns)`, as `transform` gives it.
        """
        check_is_fitted(self)
        noise = np.asarray(check_array(X), dtype=np.float64)
        if noise.shape[1] != self._n_features_out:
            raise DataError(f"The noise has {noise.shape[1]} columns; that of this model has {self._n_features_out}.")
        return self._form.restored(self._fitted.from_noise(noise), self.schema_)

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None, *, given: Any = None
    ) -> Any:
        """Draw rows, in the form of the table that was fitted.

        Args:
            n_samples: number of rows, 1 at least.
            random_state: of the draws; by default that of the estimator.
            given: values of some columns by name, of which the others are drawn: `{"age": 40}`; or a data frame of such
                columns, for each row of which `n_samples` are drawn, one after the other.

        Raises:
            ConfigError: if the density is conditional and conditions are missing, there is no such column, or the
                number of rows is not 1, 2, ...
            DataError: if a value is none of the column, or not possible.

        Warns:
            LikelifyWarning: if draws given columns are worth few independent ones.
        """
        check_is_fitted(self)
        n_samples = whole_draws(n_samples)
        seed, conditions = self._seed(random_state), [column.name for column in self.schema_ if column.given]
        if given is None and conditions:
            raise ConfigError(
                f"This density is one given {', '.join(conditions[:20])}: give their values, sample(n, given={{name: "
                "value}), or a data frame of such columns."
            )
        if given is None:
            return self._form.restored(self._fitted.sample(n_samples, seed), self.schema_)
        known = conditions_of(given, self._form, missing_words(self.missing))
        return self._form.restored(self._fitted.sample_given(n_samples, seed, known), self.schema_)

    def impute(self, X: Any, draws: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:  # noqa: N803
        """Return rows with what is missing drawn given the rest: draws and not means, so that their spread is right.

        Args:
            X: rows, as for `fit`.
            draws: of each row.
            random_state: of the draws; by default that of the estimator.

        Returns:
            A table in the form of the rows given; with several draws a list of them.
        """
        check_is_fitted(self)
        draws = whole_draws(draws)
        data, given = self._read(X), X
        X = self._form.in_order(X) if is_frame(X) else np.asarray(unmasked(X))  # noqa: N806
        form = replace(form_of(X, data), columns=self._form.columns)
        drawn, missing = self._fitted.impute(data, draws, self._seed(random_state))
        filled = [form.in_order_of(given, form.filled(X, each, missing, self.schema_)) for each in drawn.swapaxes(0, 1)]
        return filled[0] if draws == 1 else filled

    def predict_quantiles(
        self,
        X: Any,
        q: Sequence[float] = (0.05, 0.5, 0.95),
        *,
        target: str | int | None = None,  # noqa: N803
    ) -> np.ndarray:
        """Return quantiles `(n, len(q))` of one column given all others, in its units.

        Args:
            X: rows, as for `fit`; what they hold in the target is not looked at.
            q: shares below, between 0 and 1.
            target: name of the column; by default the one that is not `given`.

        Raises:
            ConfigError: if it is not said which column is meant, or it is none.
        """
        check_is_fitted(self)
        return self._fitted.quantiles(self._read(X), q, None if target is None else self._form.named(target))

    @property
    def partial_fit(self) -> Never:
        """There is none: marginals and weights are fitted to all rows at once."""
        raise AttributeError(
            "A FlowDensity has no partial_fit: its marginals and mixtures are fitted to all rows at once. Call fit "
            "with all of them, or go on training density.flow_ with lk.fit(density.flow_, rows, initialize=False)."
        )

    def save(self, folder: str | Path) -> Run:
        """Keep the fitted density as a run, which `load` and the command line read: no pickle, and safe to share.

        Of a random state only a number is kept. Types of columns are kept by their names: what has parameters of its
        own, such as the categories of pandas, comes back as the nearest plain type.

        Args:
            folder: a new one.

        Returns:
            The run.

        Raises:
            RunError: if the folder holds something already, or cannot be written.
            ConfigError: if a parameter is none that the constructor takes; nothing is written then.
        """
        check_is_fitted(self)
        form, number = self._form, self.random_state
        told = self.get_params(deep=False) | {
            "columns": named_wishes(self.columns, form) if isinstance(self.columns, Mapping) else self.columns,
            "random_state": number if isinstance(number, int | np.integer) else None,
        }
        kept = Kept(
            params=Params.parse(plain(told)),
            form=form.name,
            dtype=form.dtype.str[1:] if form.name == "array" and form.dtype.kind in "biuf" else None,
            types=form.type_names(),
            columns=form.columns,
            labels=form.kept_labels(),
            texts=form.texts,
            named=hasattr(self, "feature_names_in_"),
            offset=getattr(self, "offset_", None),
        )
        # Made before the folder, which is then not left behind half written.
        content = as_json(kept)
        run = self._fitted.save(folder)
        write_atomically(run.path / FILE, content)
        return run

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the estimator that `save` kept, or that of a run of a table that was fitted otherwise.

        Args:
            folder: of the run.

        Raises:
            RunError: if it is missing or damaged.
            ConfigError: if it is none of a table.
        """
        return cls.from_run(Run.load(folder))

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Return a run of a table as a fitted estimator.

        Of one that `save` did not make, draws are tables of Arrow, and the threshold of outliers is that of the rows
        that validated, if the data are still there.

        Args:
            run: that is fitted.

        Raises:
            ConfigError: if it is none of a table, or one of standardised columns.
            RunError: if something of it is missing or damaged.
        """
        fitted, kept = Fitted.of_run(run), kept_estimator(run)
        if kept is None:
            opened = run.config.opened
            options = None if opened is None else opened.options
            density = cls(model=run.config.model.model, missing=None if options is None else options.missing)
            density._take(fitted, Form("arrow", fitted.columns))
            density._name(fitted.columns, named=True)
            if fitted.held is not None:
                density.offset_ = float(np.percentile(-fitted.held.oddness, 100 * density.contamination))
            return density
        kept.require_columns(fitted.columns, run.path)
        density = cls(**dict(kept.params))
        density._take(fitted, kept.as_form())
        if kept.offset is not None:
            density.offset_ = kept.offset
        density._name([*map(str, kept.labels or kept.columns)], named=kept.named)
        return density

    @property
    def _n_features_out(self) -> int:
        return self._fitted.noise_width

    def _take(self, fitted: Fitted, form: Form) -> None:
        self._fitted, self._form = fitted, form
        self.flow_, self.schema_, self.course_ = fitted.flow, fitted.schema, fitted.course

    def _name(self, columns: Sequence[str], *, named: bool) -> None:
        """Set what scikit-learn's functions set in a fit."""
        vars(self)["n_features_in_"] = len(columns)
        if named:
            vars(self)["feature_names_in_"] = np.array(columns, dtype=object)

    def _seed(self, random_state: int | np.random.RandomState | None = None) -> int:
        given = self.random_state if random_state is None else random_state
        return int(check_random_state(given).randint(2**31 - 1))

    def _read(self, X: Any, *, reset: bool = False) -> Any:  # noqa: N803
        """Return a table as the data layer reads it; by the names that it had when it was fitted, unless it is now."""
        fewest = FEWEST if reset else 1
        if not is_frame(X):
            how = {"dtype": None, "ensure_all_finite": "allow-nan", "ensure_min_samples": fewest}
            X = validate_data(self, unmasked(X), reset=reset, **how)  # noqa: N806
        else:
            X = X if reset else self._form.in_order(X)  # noqa: N806
            validate_data(self, X, reset=reset, skip_check_array=True)
            if len(X) < fewest:
                raise DataError(f"Found {len(X)} sample(s) (shape={X.shape}) while a minimum of {fewest} is required.")
        data = without_missing(as_arrow(X, None if reset else self._form.columns), missing_words(self.missing))
        return data if reset else self._form.modelled(data, self.schema_)

    def _of(self, X: Any, what: Callable[[Fitted, Any], np.ndarray]) -> np.ndarray:  # noqa: N803
        check_is_fitted(self)
        return what(self._fitted, self._read(X))

    def _threshold(self, data: Any, weights: np.ndarray | None = None) -> float:
        """Return the score below which there is the share of outliers."""
        # Which rows they are must not depend on the order in which rows were given.
        places = np.linspace(0, len(data) - 1, min(len(data), THRESHOLD_ROWS)).astype(np.int64)
        kept, share = self._form.modelled(data, self.schema_), 100 * self.contamination
        some = order_of(kept, weights)[places]
        scores = -self._fitted.outlier_scores(taken(kept, some))
        if weights is None:
            return float(np.percentile(scores, share))
        return float(np.percentile(scores, share, weights=weights[some], method="inverted_cdf"))
