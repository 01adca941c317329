"""Rows of text files that are filled in: what was known goes out as it came in."""

import csv

import numpy as np
import pytest

import likelify as lk
from likelify.fitting.drawing.filling import impute_to
from likelify.fitting.drawing.sampling import sample_to
from tests.fitting.estimator.tables import density

pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")


def test_known_cells_of_a_text_file_go_out_as_they_came_in(tmp_path):
    generator = np.random.default_rng(0)
    file, filled, drawn = (tmp_path / name for name in ("rows.csv", "filled.csv", "drawn.csv"))
    with file.open("w") as handle:
        print("price,member,flag,day", file=handle)
        for row in range(120):
            price = "" if row % 9 == 0 else f"{generator.integers(200, 400) / 10:.2f}"
            member = "" if row % 7 == 0 else generator.choice(["No", "Yes"])
            print(price, member, generator.choice(["False", "True"]), f"{row % 28 + 1}.03.2024", sep=",", file=handle)
    import pyarrow.csv

    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(("member", "flag", "day"), pyarrow.string()))
    table = pyarrow.csv.read_csv(file, convert_options=options)
    density().fit(table).save(tmp_path / "run")
    run = lk.Run.load(tmp_path / "run")
    impute_to(run, file, filled, draws=2)
    with file.open() as before, filled.open() as after:
        old, new = list(csv.DictReader(before)), list(csv.DictReader(after))
    assert len(new) == 2 * len(old)
    for row, cells in enumerate(new):
        for name, text in old[row // 2].items():
            assert cells[name] == text if text else cells[name]
    assert {cells["member"] for cells in new} == {"No", "Yes"}
    sample_to(run, drawn, 60)
    with drawn.open() as handle:
        rows = list(csv.DictReader(handle))
    assert {cells["member"] for cells in rows} <= {"No", "Yes", ""}
    assert {cells["flag"] for cells in rows} <= {"False", "True"}
