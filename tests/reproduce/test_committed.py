"""The committed results: whole, of the present settings, and what the committed pages show."""

import shutil
from pathlib import Path

import pytest

from likelify.reproduce.catalog import EXPERIMENTS, experiment
from likelify.reproduce.session import Session
from likelify.reproduce.store import read_cells, to_text

ROOT = Path(__file__).parents[2]
# Committed with fewer seeds than usual.
SEEDS = {"flowification-tables": 1}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the results, in which pages may be written."""
    folder = tmp_path_factory.mktemp("checkout")
    for place in ("results", "docs/results"):
        shutil.copytree(ROOT / place, folder / place)
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_pages_are_rendered_from_committed_cells(checkout, name, monkeypatch):
    monkeypatch.chdir(checkout)
    session = Session.open(experiment(name), seeds=SEEDS.get(name))
    assert [f"{state.cell.name}: {state.why}" for state in session.of("stale", "damaged", "failed")] == []
    pages = session.write(session.report())
    if session.cells and not read_cells(session.results):
        assert pages == []
        assert not (ROOT / session.page).exists()
        return
    (page,) = pages
    assert page.read_text() == (ROOT / page).read_text()
    assert page.with_suffix("").is_dir() == (ROOT / page).with_suffix("").is_dir()
    assert not {*read_cells(session.results)} - {cell.name for cell in session.cells}


def test_files_are_laid_out_as_the_program_writes_them():
    for file in (ROOT / "results").glob("*/cells.json"):
        content = {"format": 2, "cells": read_cells(file.parent)}
        assert file.read_text() == to_text(content) + "\n"


def test_the_data_of_the_committed_tables_have_the_fingerprints_that_they_had(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    session = Session.open(experiment("flowification-tables"), seeds=1).checked()
    assert len(session.of("finished")) == 12
    assert session.of("stale") == []
