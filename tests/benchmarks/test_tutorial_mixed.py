"""The table of the tutorial on mixed columns, and what the tutorial does with it, on few rows."""

import csv

import pytest

from benchmarks import tutorial_mixed as mixed


@pytest.fixture(scope="module")
def rows():
    return mixed.orders(800)


def test_the_table_has_what_tables_of_real_life_have(rows, tmp_path):
    with mixed.write(rows, tmp_path / "orders.csv").open(newline="") as handle:
        assert list(csv.DictReader(handle)) == rows
    assert len({row["Order ID"] for row in rows}) == len(rows)
    zeros = sum(row[mixed.PARTS] == "0.00" for row in rows) / len(rows)
    assert 0.3 < zeros < 0.7
    for name, words in (("Age of bike (years)", {""}), ("Distance (km)", {"NA"}), ("Rating", {""})):
        assert 0.03 < sum(row[name] in words for row in rows) / len(rows) < 0.6
    assert {row["Condition"] for row in rows} == set(mixed.STATES)
    assert all(row[mixed.PARTS] == "0.00" for row in rows if row["Under warranty"] == "yes")
    assert mixed.orders(800) == rows


def test_spoilt_rows_differ_in_one_cell(rows):
    spoilt = [dict(row) for row in rows]
    places = mixed.spoil(spoilt, 12)
    assert len(places) == 12
    for place, (row, before) in enumerate(zip(spoilt, rows, strict=True)):
        changed = [name for name in mixed.COLUMNS if row[name] != before[name]]
        assert changed == ([places[place]] if place in places else [])
