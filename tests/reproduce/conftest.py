"""Finished cells that several files of tests look at."""

import pytest
import torch

from likelify.reproduce.session import Session
from tests.reproduce.trial import experiment, run_here


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """All cells of the trial, run in this process."""
    out = tmp_path_factory.mktemp("reproduce")
    session = Session.open(experiment(), out=out)
    torch.set_num_threads(1)
    run_here(session.todo(), session.results, session.runs)
    return out
