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


def test_what_is_carried_through_may_be_text_in_later_rows(tmp_path, monkeypatch):
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    rows = pa.table({"a": random.normal(size=90), "b": random.normal(size=90)})
    density().fit(rows).save(tmp_path / "run")
    monkeypatch.setattr("likelify.fitting.drawing.filling.PART", 30)
    run = lk.Run.load(tmp_path / "run")
    late = pa.array([None] * 60 + ["late"] * 30)
    parquet.write_table(rows.append_column("note", late), tmp_path / "in.parquet")
    impute_to(run, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet")["note"].to_pylist() == late.to_pylist()
    mixed = tmp_path / "in.csv"
    mixed.write_text("a,b,note\n" + "".join(f"{n / 90:.3f},1.0,{n if n < 60 else 'late'}\n" for n in range(90)))
    impute_to(run, mixed, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as handle:
        assert [row["note"] for row in csv.DictReader(handle)][59:61] == ["59", "late"]


def test_hot_rows_stay_near_the_data(tmp_path):
    import pyarrow as pa

    random = np.random.default_rng(0)
    age, height = random.integers(0, 90, 200), random.normal(170, 10, 200).round(1)
    days = (np.datetime64("2024-01-01") + random.integers(0, 300, 200)).astype("M8[s]")
    density().fit(pa.table({"age": age, "height": height, "day": days})).save(tmp_path / "run")
    run = lk.Run.load(tmp_path / "run")
    rows = run.sample(500, temperature=4.0, seed=1).numpy()
    seen = np.column_stack([age, height, days.astype(np.int64) / 86_400])
    margin = 0.11 * np.ptp(seen, axis=0)
    assert (rows >= seen.min(0) - margin).all()
    assert (rows <= seen.max(0) + margin).all()
    assert len(run.as_table(run.sample(50, temperature=4.0))) == 50


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_words_that_the_model_does_not_know_stay(tmp_path, ending):
    import pyarrow as pa
    from pyarrow import csv, parquet

    random = np.random.default_rng(0)
    sizes, colours = random.normal(size=90), random.choice(["=red", "-blue"], 90)
    density().fit(pa.table({"size": sizes, "colour": colours})).save(tmp_path / "run")
    rows = pa.table({"size": [0.1, None, 0.3, None], "colour": ["-blue", "green", "=pink", "=red"]})
    parquet.write_table(rows, tmp_path / "rows.parquet")
    run = lk.Run.load(tmp_path / "run")
    with pytest.warns(lk.errors.LikelifyWarning, match="green.*=pink"):
        impute_to(run, tmp_path / "rows.parquet", tmp_path / f"full.{ending}", draws=2)
    if ending == "csv":
        found = csv.read_csv(tmp_path / "full.csv")["colour"].to_pylist()
        assert found == [word for word in ("'-blue", "green", "'=pink", "'=red") for _ in range(2)]
        with pytest.warns(lk.errors.LikelifyWarning, match="green.*'=pink'"):
            impute_to(run, tmp_path / "full.csv", tmp_path / "again.csv")
        assert csv.read_csv(tmp_path / "again.csv")["colour"].to_pylist() == found
    else:
        found = parquet.read_table(tmp_path / "full.parquet")
        assert found["colour"].to_pylist() == [word for word in rows["colour"].to_pylist() for _ in range(2)]
        assert found["size"].null_count == 0


def test_what_is_known_keeps_its_type_and_its_digits(tmp_path):
    import decimal

    import pyarrow as pa
    from pyarrow import compute, parquet

    random, count = np.random.default_rng(0), 60
    moments = np.datetime64("2023-10-28T22:00:49.882039584", "ns") + random.integers(0, 10**14, count).astype("m8[ns]")
    autumn = (np.datetime64("2023-10-29T00:19:43") + 1800 * random.integers(0, 3, count)).astype("M8[us]")
    columns = {
        "id": random.integers(2**58, 2**62, count),
        "price": pa.array([decimal.Decimal(int(n)) / 100 for n in random.integers(10**15, 10**16, count)]),
        "seen": pa.array(moments),
        "clock": pa.array(autumn, pa.timestamp("us", "Europe/Berlin")),
        "few": pa.array(random.integers(0, 100, count), pa.int8()),
        "text": [f"-{value:.3f}" for value in random.random(count)],
    }
    whole = pa.table(columns)
    holes = {name: compute.if_else(random.random(count) < 0.2, None, whole[name]) for name in whole.column_names}
    rows = pa.table({name: column.cast(whole[name].type) for name, column in holes.items()})
    parquet.write_table(rows, tmp_path / "rows.parquet")
    settings = {"members": ["autoregressive"], "width": 8}
    run = lk.fit_run(str(tmp_path / "rows.parquet"), tmp_path / "run", settings=settings, steps=1)
    impute_to(run, tmp_path / "rows.parquet", tmp_path / "full.parquet")
    impute_to(run, tmp_path / "rows.parquet", tmp_path / "full.csv")
    full = parquet.read_table(tmp_path / "full.parquet")
    assert full.schema.types == rows.schema.types
    for name in rows.column_names:
        known = compute.is_valid(rows[name])
        assert full[name].filter(known).equals(rows[name].filter(known)), name
        assert full[name].null_count == 0
    with (tmp_path / "full.csv").open() as handle:
        cells = list(csv.DictReader(handle))
    for name in ("id", "price", "few", "text"):
        assert all(now[name] == str(was) for now, was in zip(cells, rows[name].to_pylist(), strict=True) if was)
