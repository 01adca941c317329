"""Samples of a run as files."""

import csv

import torch

from likelify.fitting.draw import rows_as_csv


def test_rows_in_a_csv_file_keep_all_their_digits():
    rows = 1.7e9 + 3 * torch.randn(50, 2, dtype=torch.float64)
    names, *lines = rows_as_csv(("time", "other"), rows).decode().splitlines()
    assert names == "time,other"
    assert [[float(cell) for cell in line.split(",")] for line in lines] == rows.tolist()


def test_names_of_columns_do_not_run_as_formulas():
    names = ("=cmd|' /C calc'!A0", "+a", "-x", "@sum(a)", "\tb", "a-b", "'c'")
    (line,) = csv.reader([rows_as_csv(names, torch.zeros(1, 7)).decode().splitlines()[0]])
    assert line == [f"'{name}" for name in names[:5]] + ["a-b", "'c'"]
