"""Runs that several tests look at, each fitted once."""

import pytest

from tests.fitting.report.runs import image_run, sequence_run, table_run


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return image_run(tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    return table_run(tmp_path_factory.mktemp("rows") / "run")


@pytest.fixture(scope="session")
def sequences(tmp_path_factory):
    return sequence_run(tmp_path_factory.mktemp("sequences") / "run")
