"""A run of a mixed table, fitted once."""

import pytest

from tests.fitting.conditioning.tables import fitted_run


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    return fitted_run(tmp_path_factory.mktemp("mixed") / "run")


@pytest.fixture(scope="session")
def conditioned(tmp_path_factory):
    return fitted_run(tmp_path_factory.mktemp("conditioned") / "run", given=("size", "sort"))
