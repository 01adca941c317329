"""All checks that scikit-learn has for estimators; those for outlier detectors with their score in place of log p."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import likelify as lk
from tests.fitting.estimator.tables import density

pytestmark = [
    pytest.mark.filterwarnings("ignore::likelify.errors.LikelifyWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]


@parametrize_with_checks([density()])
def test_it_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


class Detector(lk.FlowDensity):
    """The estimator with the score of outliers as its only one, as scikit-learn's detectors have it."""

    def score_samples(self, X):  # noqa: N803
        return -self.outlier_scores(X)


@pytest.mark.parametrize("name", ["check_outliers_train", "check_outliers_fit_predict"])
def test_it_keeps_the_rules_of_outlier_detectors(name):
    getattr(estimator_checks, name)("Detector", Detector(**density().get_params()))
