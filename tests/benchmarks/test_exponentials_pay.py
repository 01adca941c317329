"""Cells that are kept, and a page that says no more than its figures do."""

import json

import pytest
from benchmarks.cells import found, keep
from benchmarks.exponentials_page import page

from benchmarks import cells
from benchmarks import exponentials_pay as pay


def result(data, mixing, seed, bits, steps=100):
    return {"data": data, "mixing": mixing, "seed": seed, "bits": bits, "steps": steps, "parameters": 1234, "spent": 60}


def content(*rows):
    looks = {"equal": 0.25, "correlation": 0.5, "description": "Made here"}
    cells = [result("emoji", mixing, seed, b) for mixing, bits in rows for seed, b in enumerate(bits)]
    return {"seconds": 60.0, "wanted": len(cells), "data": {"emoji": looks}, "cells": cells}


BASE = ("1x1", (3.0, 3.1, 3.2))


def verdict(*rows):
    return next(line for line in page(content(BASE, *rows)).splitlines() if line.startswith("- **Emoji**"))


def test_a_gain_is_said_only_where_the_interval_holds_no_zero():
    assert "the axis exponential pays, it gains 0.500" in verdict(("axis-exponential", (2.5, 2.6, 2.7)))
    assert "the axis exponential loses 0.200 bits/dim to 1x1" in verdict(("axis-exponential", (3.2, 3.3, 3.4)))
    text = verdict(("axis-exponential", (2.5, 3.2, 3.3)))
    assert "the axis exponential is not told from 1x1 (a gain of 0.100 bits/dim, the interval holds 0)" in text
    assert "gains 1.000 bits/dim in the one seed" in verdict(("conv-exponential", (2.0,)))


def test_the_best_is_named_whatever_it_is():
    assert verdict(("emerging", (2.0, 2.0, 2.0))).endswith("The best mean has the emerging convolution.")
    assert verdict(("axis-exponential", (3.4, 3.4, 3.4))).endswith("The best mean has the 1x1 convolution.")


def test_every_cell_is_on_the_page():
    text = page(content(BASE, ("emerging", (2.5, 2.75))))
    assert "| images | equal neighbours | correlation | 1x1 convolution | emerging convolution |" in text
    assert "| emoji | 25 % | 0.50 | 3.100 | **2.625** |" in text
    assert "| emerging convolution | 2.500 | 2.750 | - | 2.625 | -0.425 [" in text
    assert "Made here." in text
    assert "have not been run yet" not in text
    assert "3 of 8 fits have not been run yet." in page(content(BASE, ("emerging", (2.5, 2.75))) | {"wanted": 8})


def test_cells_of_a_seed_stay_together_and_kept_ones_are_not_run_again(tmp_path, capsys):
    wanted = pay.cells(["digits", "emoji"], ["1x1", "emerging"], 2, 60.0)
    assert [(cell.seed, cell.data) for cell in wanted[:5]] == [(0, "digits")] * 2 + [(0, "emoji")] * 2 + [(1, "digits")]
    assert len({cell.file(tmp_path) for cell in wanted}) == 8
    for number, cell in enumerate(wanted):
        keep(cell, result(cell.data, cell.mixing, cell.seed, float(number)), tmp_path)
    pay.run_missing(wanted, tmp_path, None, pay.said)
    assert "8 of 8 cells are there" in capsys.readouterr().out
    assert (found(wanted[3], tmp_path) or {})["bits"] == 3.0
    assert found(pay.Cell("digits", "1x1", 0, 30.0), tmp_path) is None


def test_no_more_cells_are_run_than_asked_for(tmp_path, monkeypatch):
    run = []

    def started(command, **settings):
        assert command[2:4] == ["benchmarks.cells", "benchmarks.exponentials_pay"]
        cell = pay.Cell(**json.loads(command[4]))
        run.append((cell.data, cell.mixing, cell.seed))
        keep(cell, result(cell.data, cell.mixing, cell.seed, 2.0), tmp_path)

    monkeypatch.setattr(cells.subprocess, "run", started)
    wanted = pay.cells(["digits"], pay.MIXINGS, 2, 60.0)
    pay.run_missing(wanted, tmp_path, 3, pay.said)
    pay.run_missing(wanted, tmp_path, 2, pay.said)
    assert run == [(cell.data, cell.mixing, cell.seed) for cell in wanted[:5]]


def test_models_have_no_more_parameters_than_the_baseline_and_hardly_fewer():
    full = pay._size(pay.model("digits", "1x1", pay.WIDTH))
    for mixing in pay.MIXINGS:
        size = pay._size(pay.model("digits", mixing, pay.equal_width("digits", mixing)))
        assert 0.97 * full < size <= full


def test_what_data_look_like():
    looks = pay.looks(pay._source("digits"))
    assert looks["equal"] == pytest.approx(0.3, abs=0.05)
    assert looks["correlation"] == pytest.approx(0.39, abs=0.05)


@pytest.mark.slow
def test_a_cell_in_a_process_of_its_own_is_kept_as_it_was_measured(tmp_path):
    wanted = pay.cells(["digits"], ["1x1"], 1, 0.2)
    pay.run_missing(wanted, tmp_path, None, pay.said)
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["data"] == "digits"
    assert 1 < kept["bits"] < 10
    assert kept["steps"] > 0
