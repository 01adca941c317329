"""Text files as people write them: what stands between the cells, numbers with commas, columns that count the rows."""

import gzip
import io
import re
import time

import numpy as np
import pytest
import torch

from likelify.data import SourceOptions, open_source
from likelify.data.delimited import TextFrame, read_csv
from likelify.data.dialect import advice
from likelify.data.lines import BLOCK
from likelify.errors import DataError

NAN = np.nan


def rows(count=40, columns=2):
    return np.random.default_rng(0).normal(size=(count, columns)).round(3)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def joined(values, delimiter, header=""):
    return header + "".join(delimiter.join(map(str, row)) + "\n" for row in values.tolist())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "   ", " \t", ", ", " | "])
@pytest.mark.parametrize("header", [False, True])
def test_what_stands_between_the_cells_is_found(tmp_path, delimiter, header):
    values = rows()
    path = write(tmp_path / "a.csv", joined(values, delimiter, f"a{delimiter}b\n" if header else ""))
    names, read = read_csv(path)
    assert names == (["a", "b"] if header else ["column 1", "column 2"])
    assert np.array_equal(read, values)


@pytest.mark.parametrize(
    ("header", "delimiter", "names"),
    [
        ('"length, mm";"width, mm"\n', ";", ["length, mm", "width, mm"]),
        ("length, mm;width, mm\n", ";", ["length, mm", "width, mm"]),
        ('"a;b","c;d"\n', ",", ["a;b", "c;d"]),
        ('"length\n(mm)","width\n(mm)"\n', ",", ["length (mm)", "width (mm)"]),
        ('"of ""red"" wine"\tash\n', "\t", ['of "red" wine', "ash"]),
        ("alcohol by volume,ash left\n", ",", ["alcohol by volume", "ash left"]),
        ('"first name" "second name"\n', " ", ["first name", "second name"]),
    ],
)
def test_what_is_in_quotes_does_not_count(tmp_path, header, delimiter, names):
    values = rows()
    found, read = read_csv(write(tmp_path / "a.csv", joined(values, delimiter, header)))
    assert found == names
    assert np.array_equal(read, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,2\n"1,257",3\n', r"line 3, column 'a': '1,257' has a comma that can be .*\(1257\) or .* \(1\.257\)"),
        ('a,b\n"1,257.5",3\n', r"'1,257\.5' has commas between thousands\. .* without them: 1257\.5\."),
        ('a,b\n"1,257,000",3\n', r"has commas between thousands\. .*: 1257000\."),
        ('a,b\n"1,5",3\n0.5,3\n', r"'1,5' has a decimal comma\. .*: 1\.5\."),
        ("1,5;2.5\n1.6;2.7\n", r"line 1, column 'column 1': '1,5' has a decimal comma\. .*: 1\.5\."),
        ("a;b\n1,257;2,500\n", r"line 2, column 'a': '1,257' has a comma that can be"),
        ("a;b\n1;0,257\n1;0.5\n", r"line 2, column 'b': '0,257' has a decimal comma\. .*: 0\.257\."),
        ("a;b\n1.257,5;2\n1.257;2\n", r"has points between thousands and a decimal comma\. .*: 1257\.5\."),
        ("a;b\n1;2\n2;2\n3;2\n1,5;3\n", r"line 5, column 'a': '1,5' has a decimal comma"),
        (
            "a\n1,5,7\n2,5,7\n",
            r"line 2 has 3 values; there is 1 column\. A comma inside a number counts",
        ),
        (
            '"a","b"\n"r1",1,2\n"r2",3,4\n',
            r"line 2 has 3 values; there are 2 columns.*as R writes it.*row\.names = FALSE",
        ),
        ("a,b\n1e400,2\n", r"line 2, column 'a': the value 1e400 is too large"),
        ("a,b\n\x1b[31m,2\n", r"line 2, column 'a': '\\x1b\[31m' is not a number"),
        ("a,b\n1,\u0663\n", r"line 2, column 'b': '\u0663' is not a number"),
        ("a,b\n1,12:30\n", r"column 'b': '12:30' is several numbers with ':' between them\. Give each a column"),
        ("1 1:0.5 2:3\n", r"column 'column 2': '1:0\.5' is several numbers with ':'"),
    ],
)
def test_numbers_written_otherwise_are_named_with_advice_that_is_right(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_csv(write(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b\n1,5;2,25\n-1.257,75;1,250\n;,5\n", [[1.5, 2.25], [-1257.75, 1.25], [NAN, 0.5]]),
        ('a,b\n"1,5",3\n2,"4"\n', [[1.5, 3], [2, 4]]),
        ("1,5 2,5\n1,6 2,7\n", [[1.5, 2.5], [1.6, 2.7]]),
        ("a|b\n1,5|2.5\nNA|2.7\n", [[1.5, 2.5], [NAN, 2.7]]),
    ],
)
def test_decimal_commas_are_read_where_all_of_a_column_is_written_so(tmp_path, text, rows):
    frame = TextFrame(write(tmp_path / "a.csv", text))
    names = [column.name for column in frame.columns]
    found = np.concatenate([part.values for part in frame.rows(names)])
    assert np.array_equal(found, rows, equal_nan=True)
    assert frame.columns[0].told.said == "numbers with decimal commas"


def test_a_column_of_decimal_commas_has_no_point_after_the_first_rows(tmp_path):
    lines = ["a;b", *[f"{n},5;x" for n in range(1200)]]
    with pytest.raises(DataError, match=r"line 1203, column 'a': '3\.5' is no number with a decimal comma, as the oth"):
        open_source(write(tmp_path / "a.csv", "\n".join([*lines, "", "3.5;y", ""])))
    read = open_source(write(tmp_path / "b.csv", "\n".join([*lines, "-;y", ""])), SourceOptions(missing="-"))
    assert read.meaning[0].missing
    assert read.meaning[0].said == "numbers with decimal commas"


def test_decimals_are_those_of_the_text(tmp_path):
    text = "a;b;c;d\n" + "".join(f"{n * n}.50;{n * n / 4 % 7};{n * n % 11},00;{n % 3}\n" for n in range(40))
    found = open_source(write(tmp_path / "a.csv", text)).meaning
    assert [column.decimals for column in found] == [2, None, 2, None]
    assert [column.kind for column in found] == ["real", "real", "integer", "integer"]


@pytest.mark.parametrize(
    "text", ['a\n"1\n2"\n3\n', 'a\n1\n"2\n3\n', 'a,b\n1,"2\n3",4\n', 'a\n"1"2\n', 'a\n"1""2"\n', 'a\n1"2\n']
)
def test_a_number_over_two_lines_or_quotes_inside_it_are_never_put_together(tmp_path, text):
    with pytest.raises(
        DataError, match=r"line [23](, column .* several lines|, column .* has a quote inside| has 3 values| is no row)"
    ):
        read_csv(write(tmp_path / "a.csv", text))


@pytest.mark.parametrize("between", [":", "::", "/", " - ", "-", "^", "~", "->", " : ", ": ", "&", "\xa0", "\x01"])
@pytest.mark.parametrize("header", [False, True])
def test_what_else_stands_between_the_numbers_is_named(tmp_path, between, header):
    path = write(tmp_path / "a.csv", joined(rows(), between, f"a{between}b\n" if header else ""))
    seen = re.escape(repr(between.strip(" ")))
    with pytest.raises(DataError, match=rf"has {seen} between its numbers, so .* commas, semicolons, tabs, bars or b"):
        read_csv(path)


@pytest.mark.parametrize(
    ("text", "seen"), [("1:2\n", ":"), ('"1":"2"\n"3":"4"\n', ":"), ("day\n2020-01-02\n2021-03-04\n", "-")]
)
def test_lines_of_several_numbers_are_no_words(tmp_path, text, seen):
    with pytest.raises(DataError, match=f"has '{seen}' between its numbers.* those of a date do, make one number"):
        read_csv(write(tmp_path / "a.csv", text))


def test_signs_and_exponents_stand_between_no_numbers(tmp_path):
    for text, width in (("1 -5\n2 -6\n", 2), ("1e-5\n1e-3\n", 1), ("-1\t-2\n-3\t-4\n", 2)):
        assert read_csv(write(tmp_path / "a.csv", text))[1].shape == (2, width)


def test_long_cells_are_looked_at_in_no_time():
    begin = time.process_time()
    for cell in ("1" * 60_000 + ":", "1:" * 30_000, "1- " * 20_000, "1" + "-" * 60_000, "1" + " " * 60_000 + "x"):
        assert "1" in advice(cell)
    assert time.process_time() - begin < 1


def test_the_advice_is_never_off_by_a_thousand():
    """Where a cell can mean two numbers, both are shown."""
    for cell in ("1,257", "12,257", "-999,000"):
        assert cell.replace(",", "") in advice(cell)
        assert cell.replace(",", ".") in advice(cell)
    assert "1257.5" in advice("1,257.5")
    assert "1.257.5" not in advice("1,257.5")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e200", "the value 1e200 is too large"),
        ("-3e151", "the value -3e151 is too large"),
        ("inf", "the value is inf"),
        ("-Infinity", "the value is -Infinity"),
    ],
)
def test_a_value_that_cannot_be_computed_with_is_named(tmp_path, value, message):
    lines = joined(rows(), ",", "a,b\n").splitlines()
    lines[17] = f"1,{value}"
    with pytest.raises(DataError, match=f"'.*a.csv', line 18, column 'b': {message}"):
        open_source(str(write(tmp_path / "a.csv", "\n".join(lines))))


def test_a_value_far_from_all_others_is_read(tmp_path):
    lines = joined(rows(200), ",", "a,b\n").splitlines()
    lines[17] = "1,1e30"
    source = open_source(str(write(tmp_path / "a.csv", "\n".join(lines))))
    largest = [source.read(split, torch.arange(source.size(split))).x.max() for split in source.facts().sizes]
    assert max(largest) == 1e30


def test_faults_far_into_a_file_have_the_right_line(tmp_path):
    values = rows(110_000)
    stream = io.StringIO()
    np.savetxt(stream, values, delimiter=",", fmt="%.3f")
    lines = stream.getvalue().splitlines()
    assert len(stream.getvalue()) > 1.2 * BLOCK
    whole = read_csv(write(tmp_path / "a.csv", stream.getvalue()))[1]
    assert np.array_equal(whole, values)
    for number in (3, 109_990):
        spoiled = list(lines)
        spoiled[number - 1] = "1,x"
        spoiled.insert(1, "")
        with pytest.raises(DataError, match=f"line {number + 1}, column 'column 2': 'x' is not a number"):
            read_csv(write(tmp_path / "a.csv", "\r\n".join(spoiled)))


def test_a_first_line_that_is_one_long_cell(tmp_path):
    for text in ("x" * 140_000 + ",b\n1,2\n", '"' + "x" * 140_000 + "\n1,2\n", "1" * 140_000 + "\n2\n"):
        with pytest.raises(DataError, match=r"a\.csv"):
            read_csv(write(tmp_path / "a.csv", text))
    with pytest.raises(DataError, match=r"line 2 is no row of numbers: .*\(field larger"):
        read_csv(write(tmp_path / "a.csv", "a,b\n" + "1" * 140_000 + ",2\n"))
    with pytest.raises(DataError, match=r"line 2 has more than 2,097,152 characters"):
        read_csv(write(tmp_path / "a.csv", "a\n" + "1" * 2_200_000 + "\n"))
    with pytest.raises(DataError, match=r"has 70,001 columns; at most 65,536"):
        read_csv(write(tmp_path / "a.csv", "," * 70_000 + "\n1\n"))


def counted(start, names="", delimiter=","):
    values = rows(60)
    text = names + "".join(f"{start + i}{delimiter}{a}{delimiter}{b}\n" for i, (a, b) in enumerate(values.tolist()))
    return values, text


@pytest.mark.parametrize(
    ("start", "header", "column"),
    [
        (0, ",a,b\n", "column 1"),
        (1, '"","a","b"\n', "column 1"),
        (0, "Unnamed: 0,a,b\n", "Unnamed: 0"),
        (1, "rownames,a,b\n", "rownames"),
        (0, "index,a,b\n", "index"),
        (0, "", "column 1"),
        (0, ",0,1\n", "column 1"),
    ],
)
def test_a_first_column_that_numbers_the_rows_is_left_out_with_a_word(tmp_path, start, header, column):
    values, text = counted(start, header)
    source = open_source(str(write(tmp_path / "a.csv", text)))
    assert source.event_shape == (2,)
    assert f"without its first column, '{column}', which numbers the rows" in source.facts().description
    parts = [source.read_all(split).x.numpy() for split in ("train", "validation", "test")]
    assert np.array_equal(np.sort(np.concatenate(parts), axis=0), np.sort(values, axis=0))


def test_a_column_that_counts_and_has_a_name_stays(tmp_path):
    for start, header in ((0, "time,a,b\n"), (2, ""), (2, "column 1,column 2,column 3\n"), (2, "index,a,b\n")):
        path, first = write(tmp_path / "a.csv", counted(start, header)[1]), header.partition(",")[0]
        if first:
            with pytest.raises(DataError, match=f"column '{first}': its values number the rows.*--drop '{first}'"):
                open_source(path)
        source = open_source(path, SourceOptions(columns={first: "integer"}) if first else None)
        assert source.event_shape == (3,)
        assert "without" not in source.description
    with pytest.raises(DataError, match="has nothing but the numbers of its rows"):
        open_source(str(write(tmp_path / "a.csv", "".join(f"{n}\n" for n in range(30)))))


ORDER = np.random.default_rng(1).permutation(60)


@pytest.mark.parametrize("labels", [ORDER, 3 * np.arange(60) + 5, 10**9 + 7 * ORDER])
@pytest.mark.parametrize("name", ["", '""', "Unnamed: 0"])
def test_labels_of_rows_that_were_shuffled_or_left_out_are_no_column(tmp_path, labels, name):
    values = np.column_stack([labels, rows(60)])
    lines = [f"{int(label)},{a},{b}\n" for label, a, b in values.tolist()]
    source = open_source(str(write(tmp_path / "a.csv", "".join([f"{name},a,b\n", *lines]))))
    assert source.columns == ("a", "b")
    assert f"without its first column, '{name.strip(chr(34)) or 'column 1'}', which numbers" in source.description
    assert open_source(write(tmp_path / "b.csv", "".join(lines))).event_shape == (3,)
    kept = SourceOptions(columns="id=integer")
    assert open_source(write(tmp_path / "b.csv", "id,a,b\n" + "".join(lines)), kept).event_shape == (3,)


@pytest.mark.parametrize("labels", [ORDER // 2, ORDER + 0.5])
def test_numbers_that_repeat_or_are_not_whole_are_no_labels(tmp_path, labels):
    lines = [f"{label},{a},{b}\n" for label, (a, b) in zip(labels.tolist(), rows(60).tolist(), strict=True)]
    assert open_source(str(write(tmp_path / "a.csv", "".join([",a,b\n", *lines])))).event_shape == (3,)


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 1 is not UTF-8 \(the byte 0xf6\)\. Save the file as text in UTF-8"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match="line 1 is UTF-16"):
        read_csv(tmp_path / "a.csv")
    for content, kind in (
        (b"PK\x03\x04\xff", "the start of a ZIP archive"),
        (gzip.compress(gzip.compress(b"1")), "packed twice"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(DataError, match=kind):
            read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("between", [";", "\t", "|"])
@pytest.mark.parametrize("header", ["Ort;Art;Wert, innen", None])
def test_decimal_commas_are_not_what_stands_between_cells(tmp_path, between, header):
    lines = [f"{'ABC'[n % 3]};{'xy'[n % 2]};{n},{n % 10}" for n in range(40)]
    file = tmp_path / "a.csv"
    file.write_text("\n".join([*([header] if header else []), *lines]).replace(";", between))
    frame = open_source(file)
    assert frame.event_shape == (3,)
    assert [column.kind for column in frame.schema] == ["category", "category", "real"]


def test_commas_between_cells_stay_so_where_semicolons_are_in_words(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("a,b,c\n" + "\n".join(f"x;{n % 3},{n**2 % 17}.5,{n**3 % 19}" for n in range(40)))
    assert open_source(file).event_shape == (3,)


def test_quoted_words_behind_blanks_are_the_words_in_every_piece(tmp_path):
    rows = [f'{n}.5, "{("red", "blue")[n % 2]}"' for n in range(200_000)]
    rows[150_000] = ' "1.5", "red"'
    file = tmp_path / "a.csv"
    file.write_text("x, colour\n" + "\n".join(rows))
    assert open_source(file).schema[1].categories == ("blue", "red")


@pytest.mark.parametrize("header", ["a;b\n", ""])
def test_what_spreadsheets_say_of_the_delimiter_is_no_row(tmp_path, header):
    rows = "".join(f"{n**2 % 31};{n % 7},5\n" for n in range(60))
    file = tmp_path / "a.csv"
    file.write_text(f"sep=;\n{header}{rows}")
    source = open_source(file)
    assert source.event_shape == (2,)
    assert sum(source.size(split) for split in ("train", "validation", "test")) == 60
    assert source.columns == (("a", "b") if header else ("column 1", "column 2"))
