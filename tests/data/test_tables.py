import gzip
import math

import numpy as np
import pytest
import torch

from likelify.data import open_source, standardized, table
from likelify.data.delimited import read_csv
from likelify.data.tables import TableSource, standardize
from likelify.errors import DataError

SPLITS = ("train", "validation", "test")


def rows(count=50, columns=3):
    return np.random.default_rng(2).normal(size=(count, columns)) * [1, 10, 0.1][:columns] + [0, 5, -3][:columns]


def test_a_table_is_split_as_documented_and_keeps_its_units():
    values = rows()
    source = table(values, columns=["a", "b", "c"])
    assert (source.kind, source.event_shape, source.levels, source.classes) == ("table", (3,), None, None)
    assert [source.size(split) for split in SPLITS] == [40, 5, 5]
    parts = dict(zip(SPLITS, np.split(values[np.random.default_rng(0).permutation(50)], [40, 45]), strict=True))
    for split, part in parts.items():
        batch = source.read_all(split)
        assert batch.x.dtype == torch.float64
        np.testing.assert_array_equal(batch.x.numpy(), part)
    assert source.columns == source.facts().columns == ("a", "b", "c")


def test_a_table_in_units_of_its_standard_deviations():
    values = rows()
    source = standardized(table(values, columns=["a", "b", "c"], labels=np.arange(50) % 2))
    parts = dict(zip(SPLITS, np.split(values[np.random.default_rng(0).permutation(50)], [40, 45]), strict=True))
    mean, scale = parts["train"].mean(0), parts["train"].std(0)
    for split, part in parts.items():
        np.testing.assert_array_equal(source.read_all(split).x.numpy(), (part - mean) / scale)
    assert (source.name, source.columns, source.classes) == ("table, standardised", ("a", "b", "c"), 2)
    assert source.fingerprint() != table(values).fingerprint()
    with pytest.raises(DataError, match="'digits' is no table"):
        standardized(open_source("digits"))


def test_labels_follow_their_rows():
    values = rows()
    source = table(values, labels=(values[:, 1] > 5).astype(int))
    assert source.classes == 2
    for split in SPLITS:
        batch = source.read_all(split)
        assert batch.labels.tolist() == (batch.x[:, 1] > 5).int().tolist()


@pytest.mark.parametrize(
    ("name", "columns", "sizes", "classes"),
    [
        ("iris", 4, [120, 15, 15], 3),
        ("wine", 13, [144, 17, 17], 3),
        ("breast-cancer", 30, [457, 56, 56], 2),
        ("diabetes", 10, [354, 44, 44], None),
        ("linnerud", 6, [16, 2, 2], None),
    ],
)
def test_tables_of_scikit_learn(name, columns, sizes, classes):
    source = open_source(name)
    assert (source.name, source.event_shape, source.classes) == (name, (columns,), classes)
    assert [source.size(split) for split in SPLITS] == sizes
    assert len(set(source.columns)) == columns


def write(path, text, encoding="utf-8"):
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def csv_text(values, header=None, delimiter=","):
    lines = [] if header is None else [delimiter.join(header)]
    return "\n".join([*lines, *(delimiter.join(map(repr, map(float, row))) for row in values)]) + "\n"


@pytest.mark.parametrize(
    ("file", "header", "delimiter", "names"),
    [
        ("a.csv", None, ",", ["column 1", "column 2", "column 3"]),
        ("a.csv", ["x", '"y, with a comma"', "z"], ",", ["x", "y, with a comma", "z"]),
        ("a.csv", ["0", "1", "2"], ",", ["0", "1", "2"]),
        ("a.csv.gz", ["x", "", "z"], ";", ["x", "column 2", "z"]),
        ("a.tsv", ["x", "y", "z"], "\t", ["x", "y", "z"]),
    ],
)
def test_csv_files_of_many_kinds(tmp_path, file, header, delimiter, names):
    values = rows()
    path = write(tmp_path / file, csv_text(values, header, delimiter), "utf-8-sig" if header else "utf-8")
    found, read = read_csv(path)
    assert found == names
    assert np.array_equal(read, values)
    source = open_source(str(path))
    assert source.name == f"table:{path}"
    assert source.family == "table"
    assert open_source(source.name).fingerprint() == source.fingerprint() == table(values).fingerprint()


def test_quotes_blank_lines_and_one_column(tmp_path):
    path = write(tmp_path / "a.csv", '\n"a"\r\n"1.5"\r\n\r\n 2 \r\n-3e1\r\n')
    names, values = read_csv(path)
    assert names == ["a"]
    assert values.tolist() == [[1.5], [2.0], [-30.0]]


def test_numpy_files(tmp_path):
    values = rows()
    np.save(tmp_path / "a.npy", values)
    assert open_source(str(tmp_path / "a.npy")).fingerprint() == table(values).fingerprint()
    content = (tmp_path / "a.npy").read_bytes()
    for wrong, message in (
        (values[0], "items along the first axis"),
        (np.array([["a", "b"]]), "does not hold rows of numbers"),
        (np.array([[1, "b"]], dtype=object), "not a whole numpy file of numbers"),
        (np.array([[1.0, 2.0], [np.inf, 1.0]]), "row 1, column 'column 1': the value is inf. Fill"),
    ):
        np.save(tmp_path / "a.npy", wrong, allow_pickle=True)
        with pytest.raises(DataError, match=message):
            open_source(str(tmp_path / "a.npy"))
    for cut in (
        content[:-1],
        content[:20],
        b"",
        b"foreign" * 9,
        content.replace(b"{", b"["),
        content.replace(b"50", b"9" * 2),
    ):
        (tmp_path / "a.npy").write_bytes(cut)
        with pytest.raises(DataError, match="not a whole numpy file"):
            open_source(str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('""', "has no rows: nothing stands between its quotes"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,NA\n3,\n", "column 'b': it has no values. Words that go on: --drop 'b'"),
        ("1,2\n1,-inf\n", "line 2, column 'column 2': the value is -inf"),
        ("a,colour\n1,red\n1,2\n1,3\n", "line 2, column 'colour': 'red' is not a number. Drop the column"),
        ("a,b\n1,2\n1,1_000\n", "line 3, column 'b': '1_000' is not a number"),
        (
            "1,2\n1,3\n2,blue\n4,red",
            r"line 3, column 'column 2': 'blue' is not .* \(one of 2 such values; also 'red' in line 4\)",
        ),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 values; there are 2 columns"),
        ("a,b\n1,2\n1\n", "line 3 has 1 value; there are 2 columns"),
        ("a,b\n1,5\n" * 2, "line 3, column 'a': 'a' is not a number"),
        ("a,b\n1,2\n3,4\n", "at least 10 items to be cut into splits, got 2"),
    ],
)
def test_tables_that_are_not_right_name_line_and_column(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=message):
        open_source(str(path))


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match=r"There is no file '.*nowhere\.csv'"):
        open_source(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match=r"its name must end in \.csv"):
        open_source("table:rows.xlsx")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a\n")
    with pytest.raises(DataError, match="cannot be read as text"):
        open_source(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"1,2\n" * 20 + b"\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot be read as a table of numbers|cannot be read as text"):
        open_source(str(tmp_path / "a.csv"))
    packed = gzip.compress(csv_text(rows(500)).encode())
    (tmp_path / "a.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="damaged or cut off"):
        open_source(str(tmp_path / "a.csv.gz"))


def test_arrays_that_are_no_tables():
    with pytest.raises(DataError, match="rows have shape"):
        table(np.zeros(5))
    with pytest.raises(DataError, match="row 3, column 1: the value is inf"):
        table(np.where(np.arange(40).reshape(20, 2) == 7, math.inf, rows(20, 2)))
    with pytest.raises(DataError, match="has 3 columns and 1 names"):
        table(rows(), columns=["a"])


def test_a_column_of_one_value_is_kept_and_nothing_is_divided_by_zero():
    rows = np.stack([np.arange(12.0), np.full(12, 0.1)], axis=1)
    scaled = standardize({"train": rows[:10]}, rows)
    assert np.isfinite(scaled["train"]).all()
    assert scaled["train"][:, 0].tolist() == ((rows[:10, 0] - rows[:, 0].mean()) / rows[:, 0].std()).tolist()
    flat = TableSource("flat", standardize({"train": rows[:10], "validation": rows[10:]}, rows))
    assert [column.is_modelled for column in flat.schema] == [True, False]


def test_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match="two columns called 'a'"):
        table(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "a"])


def test_names_of_columns():
    assert table(rows(columns=2), columns=[2019, 2020]).columns == ("2019", "2020")
    with pytest.raises(DataError, match="need a list of names, got the text 'ab'"):
        table(rows(columns=2), columns="ab")
