"""Tables of files: words, dates, truth values, labels, what is missing; the same from text and from Parquet."""

import numpy as np
import pandas as pd
import pytest
import torch

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.encoding import decode
from likelify.data.table_files import as_classes
from likelify.errors import ConfigError, DataError, LikelifyWarning
from tests.data.kinds import kinds

RNG = np.random.default_rng(0)
PEOPLE = pd.DataFrame(
    {
        "id": [f"p{n}" for n in range(60)],
        "age": RNG.integers(18, 90, 60),
        "height": RNG.normal(170, 10, 60).round(1),
        "smokes": RNG.integers(0, 2, 60) == 1,
        "city": RNG.choice(["Rome", "Oslo", "Bonn"], 60),
        "born": pd.date_range("1950-01-01", periods=60).strftime("%Y-%m-%d"),
    }
)
NUMBERS = ["age", "height", "smokes"]
ORDER = np.random.default_rng(0).permutation(60)


def write(path, frame=PEOPLE):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet"])
def test_a_file_says_the_same_whatever_its_format(tmp_path, name):
    path = write(tmp_path / name)
    with pytest.raises(
        DataError, match=r"column 'id': nearly every row has a word of its own.* --drop 'id' \('--drop a"
    ):
        open_source(path)
    whole = open_source(path, SourceOptions(drop="auto"))
    assert whole.columns == tuple(PEOPLE.columns[1:])
    assert kinds(whole) == ("integer", "real", "boolean", "category", "date")
    assert "without 'id'" in whole.description
    back = decode(whole.read_all("test").x.numpy(), whole.schema)
    for column in PEOPLE.columns[1:]:
        assert list(back[column]) == PEOPLE[column][ORDER[54:]].tolist()
    source = open_source(path, SourceOptions(drop=["id", "born"], labels="city"))
    assert (source.columns, kinds(source)) == (tuple(NUMBERS), ("integer", "real", "boolean"))
    assert (source.classes, source.class_names) == (3, ("Bonn", "Oslo", "Rome"))
    test = source.read_all("test")
    assert np.array_equal(test.x.numpy(), PEOPLE[NUMBERS].to_numpy(dtype=float)[ORDER[54:]])
    assert [source.class_names[n] for n in test.labels.tolist()] == PEOPLE["city"].to_numpy()[ORDER[54:]].tolist()
    assert "its classes in 'city': Bonn, Oslo, Rome" in source.description
    assert torch.equal(test.x, as_fitted(tmp_path).read_all("test").x)
    items = open_items(path, source.facts(), SourceOptions(labels="city"))
    batch = next(items.batches(60))
    assert batch.carried["id"] == PEOPLE["id"].tolist()
    assert [source.class_names[n] for n in batch.batch.labels.tolist()] == PEOPLE["city"].tolist()


def as_fitted(folder):
    return open_source(write(folder / "plain.csv", PEOPLE[NUMBERS]))


def test_new_rows_are_read_as_the_model_knows_its_columns(tmp_path):
    facts = open_source(write(tmp_path / "a.csv"), SourceOptions(drop="id")).facts()
    other = PEOPLE[["born", "city", "smokes", "height", "age"]].astype({"height": object, "age": object})
    other = other.assign(city=["Oslo", "Paris", "Rome"] * 20)
    other.loc[4, ["height", "age"]] = None
    for what in (write(tmp_path / "b.csv", other), other.astype({"height": float, "age": float})):
        with pytest.warns(LikelifyWarning, match=r"words that the model does not know, .*: 'city': 'Paris'\.$") as said:
            rows = np.concatenate([part.batch.x.numpy() for part in open_items(what, facts).batches(7)])
        assert len(said) == 1
        back = decode(rows, facts.schema)
        assert back["city"] == ["Oslo", None, "Rome"] * 20
        assert back["age"] == [None if n == 4 else age for n, age in enumerate(PEOPLE["age"])]
        assert back["born"] == PEOPLE["born"].tolist()
    late = PEOPLE.assign(born=["1960-01-01"] * 50 + ["never"] * 10)
    with pytest.raises(DataError, match=r"b\.csv', line 52, column 'born': 'never' is no date as %Y-%m-%d writes it"):
        list(open_items(write(tmp_path / "b.csv", late), facts).batches(7))


def test_everything_wrong_is_said_in_one_message(tmp_path):
    wrong = PEOPLE.assign(when=["1/2/2020", "3/4/2021"] * 30, size=["S", "M"] * 30, empty="", row=np.arange(60))
    wrong = wrong.astype({"height": object, "smokes": object})
    wrong.loc[[7, 9], "height"] = "tall"
    wrong.loc[11, "age"] = -1
    path = write(tmp_path / "a.csv", wrong)
    path.write_text(path.read_text() + "1,2\n")
    with pytest.raises(DataError) as caught:
        open_source(path, SourceOptions(columns="size=ordered,age=integer[0,120]", drop="city"))
    said = str(caught.value)
    for part in (
        "a.csv', line 62 has 2 values; there are 10 columns",
        "line 9, column 'height': 'tall' is not a number",
        "(one of 2 such values",
        "column 'id': nearly every row has a word of its own",
        "column 'when': its dates, such as '1/2/2020', can be read as %d/%m/%Y or %m/%d/%Y",
        "column 'size': the order of its words is not known. Say it: ordered[M,S]",
        "column 'age': the value -1 lies outside of 0 to 120, the range that you declared",
        "column 'empty': it has no values",
        "column 'row': its values number the rows",
        "--drop 'city,id,empty,row'",
        "--columns 'size=ordered[M,S],age=integer,when=date[%d/%m/%Y]' --missing 'tall' --dependent drop (",
    ):
        assert part in said
    path = write(tmp_path / "b.csv", PEOPLE.assign(when=wrong["when"], empty=""))
    words = SourceOptions(columns="when=date[%m/%d/%Y]", drop="auto")
    assert decode(open_source(path, words).read_all("test").x.numpy(), open_source(path, words).schema)["when"]


def test_what_the_user_says_of_columns_wins(tmp_path):
    frame = pd.DataFrame({"zip": ["01234", "09999"] * 30, "n": RNG.integers(0, 900, 60), "x": RNG.normal(size=60)})
    frame = frame.assign(size=["S", "M", "L"] * 20, ok=["yes", "no"] * 30, day=[20200131, 20201231] * 30)
    words = "zip=category,n=real[0,),size=ordered[S,M,L],ok=boolean,day=date[%Y%m%d]"
    for what in (write(tmp_path / "a.csv", frame), frame):
        options = SourceOptions(columns=words, given="size")
        source = as_source(what, columns=words, given="size") if what is frame else open_source(what, options)
        assert kinds(source) == ("category", "real", "real", "ordered", "boolean", "date")
        assert [column.given for column in source.schema] == [name == "size" for name in frame.columns]
        zips, n, _, size, ok, day = source.schema
        assert zips.categories == ("01234", "09999")
        assert (n.lower, n.upper, n.declared, n.states, n.step) == (0, None, True, (), None)
        assert size.categories == ("S", "M", "L")
        assert (ok.states, day.written, day.unit) == ((0, 1), "%Y%m%d", "day")
    with pytest.raises(DataError, match="There is no column 'zap'. Did you mean 'zip'"):
        as_source(frame, columns={"zap": "category"})
    with pytest.raises(DataError, match="all columns are given, so there is nothing left"):
        as_source(frame[["x"]], given=["x"])
    for wrong, message in (
        ("zip=word", "There is no kind of column 'word'"),
        ("zip=integer[3,1]", "ends before it starts"),
        ("n=real[0,),x", "'x' is only named"),
        ("zip=ordered[a,a]", "name each of its words once"),
    ):
        with pytest.raises(ConfigError, match=message):
            SourceOptions(columns=wrong)


def test_ordered_categories_of_a_frame_keep_their_order(tmp_path):
    sizes = pd.Categorical(["S", "L", "M"] * 20, categories=["S", "M", "L"], ordered=True)
    frame = pd.DataFrame({"size": sizes, "rank": pd.Categorical([3, 1, 2] * 20), "x": RNG.normal(size=60)})
    frame.to_parquet(tmp_path / "a.parquet")
    for source in (as_source(frame), open_source(tmp_path / "a.parquet")):
        assert source.schema[0].kind == "ordered"
        assert source.schema[0].categories == ("S", "M", "L")
    # Parquet keeps no categories of numbers.
    assert (as_source(frame).schema[1].kind, as_source(frame).schema[1].categories) == ("category", ("1", "2", "3"))


def test_dates_times_and_durations_of_frames():
    days = pd.date_range("2020-01-01", periods=60, tz="Europe/Rome")
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2020-01-01 00:00:05", periods=60, freq="7h"),
            "fine": pd.date_range("2020-01-01", periods=60, freq="90001ms"),
            "zoned": days,
            "clock": pd.to_datetime(days).time,
            "lasted": pd.to_timedelta(RNG.integers(0, 9999, 60), unit="s"),
            "x": RNG.normal(size=60),
        }
    )
    frame.loc[3, "at"] = pd.NaT
    frame["clock"] = [None if n == 5 else t.replace(minute=n) for n, t in enumerate(frame["clock"])]
    source = as_source(frame)
    assert kinds(source) == ("date", "date", "date", "date", "integer", "real")
    rows = np.concatenate([source.read_all(split).x.numpy() for split in ("train", "validation")])
    back = decode(rows, source.schema, written=False)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(back["at"], frame["at"].to_numpy()[order].astype("M8[s]"), equal_nan=True)
    assert np.array_equal(back["fine"], frame["fine"].to_numpy()[order].astype("M8[us]"))
    assert np.array_equal(back["zoned"], frame["zoned"].dt.tz_localize(None).to_numpy()[order])
    assert back["clock"] == [frame["clock"][n] for n in order]
    assert (source.schema[1].rest, source.schema[0].rest) == ("density", "steps")
    np.testing.assert_array_equal(next(open_items(frame, source.facts()).batches(60)).batch.x.numpy()[order], rows)


def test_arrays_of_objects_are_tables():
    values = PEOPLE[["age", "height", "smokes", "city"]].to_numpy(dtype=object)
    values[3, 0] = None
    source = as_source(values)
    assert kinds(source) == ("integer", "real", "boolean", "category")
    assert [column.missing for column in source.schema] == [True, False, False, False]
    rows = next(open_items(values, source.facts()).batches(60)).batch.x.numpy()
    assert decode(rows, source.schema)["column 4"] == PEOPLE["city"].tolist()


def test_a_label_that_the_model_does_not_know(tmp_path):
    facts = open_source(write(tmp_path / "a.csv"), SourceOptions(drop="id,born", labels="city")).facts()
    other = PEOPLE.assign(city=["Rome"] * 40 + ["Oslp"] * 20)
    with pytest.raises(DataError, match=r"column 'city', row 40: There is no class 'Oslp'. Did you mean 'Oslo'"):
        list(open_items(write(tmp_path / "b.csv", other), facts, SourceOptions(labels="city")).batches(7))


def test_classes_are_numbered_in_their_order():
    for labels, names in (
        ([2, 0, 1, 1], None),
        (["2", "0", "1"], None),
        ([3, 10, -1], ("-1", "3", "10")),
        (["b", "a", "10", "9"], ("9", "10", "a", "b")),
        ([True, False], ("False", "True")),
    ):
        numbers, found = as_classes(labels, "it")
        assert found == names
        known = names or [str(n) for n in range(len(set(labels)))]
        assert [known[n] for n in numbers] == [str(label) for label in labels]
    for labels, message in (
        ([0.5], "got '0.5' in row 0"),
        (["a", None], "row 1 is missing"),
        (["", "a"], "row 0 is mis"),
    ):
        with pytest.raises(DataError, match=message):
            as_classes(labels, "it")
    with pytest.raises(DataError, match="1,001 different labels"):
        as_classes(list(range(1001)), "it")


def test_names_of_columns_are_read_as_in_a_text_file():
    assert SourceOptions(drop='a, "b, c" ,d').drop == ("a", "b, c", "d")
    assert SourceOptions(columns='a, "b, c" ,d').columns == ("a", "b, c", "d")
    assert SourceOptions(columns='"b, c"=real(,1],d = ordered[x,"y z"]').columns == {
        "b, c": "real(,1]",
        "d": 'ordered[x,"y z"]',
    }
    for wrong in ("", [], "a,,b"):
        with pytest.raises(ConfigError, match="columns"):
            SourceOptions(columns=wrong)


def test_a_frame_takes_its_labels_from_a_column_or_from_beside(tmp_path):
    source = as_source(PEOPLE[NUMBERS], labels=np.arange(60) % 2)
    assert (source.classes, source.class_names) == (2, None)
    with pytest.raises(DataError, match="kind=, levels= and channels= have no effect"):
        as_source(PEOPLE[NUMBERS], kind="image")


def test_real_numbers_are_no_classes(tmp_path):
    random = np.random.default_rng(0)
    lines = ["a,b,l", *(f"{a:.3f},{b:.3f},{c:.2f}" for a, b, c in random.normal(size=(50, 3)))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="is a real number"):
        open_source(tmp_path / "rows.csv", SourceOptions(labels="l"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n" + "1,2,\n" * 30, "line 2"),
        ("My table\n" + "a,b\n" + "1,2\n" * 30, "line 2"),
    ],
)
def test_lines_that_are_no_rows_are_named_even_where_all_are(tmp_path, text, said):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        open_source(tmp_path / "rows.csv")
    assert said in str(refused.value)
    assert "no rows" not in str(refused.value)


def test_one_impossible_date_among_few_is_named(tmp_path):
    days = [f"2020-02-{1 + row % 15:02d}" for row in range(100)] + ["2020-02-30"]
    random = np.random.default_rng(0)
    lines = ["d,x", *(f"{day},{random.normal():.3f}" for day in days)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 102, column 'd': '2020-02-30' is no date"):
        open_source(tmp_path / "rows.csv")
